"""Verbatim copies of the training data: rates by brute force, and models that recite."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from headway.cli import main
from headway.data import PromptCompletion, Text
from headway.errors import ConfigError, DataError
from headway.evaluation.probes.configs import VerbatimConfig
from headway.evaluation.probes.ngrams import CorpusNgrams
from headway.evaluation.probes.verbatim import CopiedShare, copies_of, learnt, prompt_and_reference, rates
from tests.training.recipes import WORDS, save_model

tokens = st.lists(st.integers(0, 2), max_size=15)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("tiny"))


@settings(max_examples=100, deadline=None)
@given(st.lists(tokens, max_size=3), tokens, tokens, st.integers(1, 4))
def test_a_copy_stands_in_the_training_data_and_not_in_the_prompt(
    documents: list[list[int]], text: list[int], prompt: list[int], n: int
) -> None:
    def grams(ids: list[int]) -> list[tuple[int, ...]]:
        return [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]

    known = {gram for document in documents for gram in grams(document)}
    expected = [gram in known and gram not in grams(prompt) for gram in grams(text)]
    assert copies_of(text, prompt, CorpusNgrams(documents, n)) == expected


def test_a_model_that_recites_copies_all_and_one_that_repeats_its_prompt_nothing(tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    known = "one two three four five six seven eight nine ten plus minus is and the cat"
    index = [CorpusNgrams([tokenizer(known, add_special_tokens=False)["input_ids"]], n) for n in (4, 8)]
    recited = "three four five six seven eight nine ten plus minus"
    found = rates([recited], ["one"], tokenizer, index)
    assert [found.copied[n].share for n in (4, 8)] == [1.0, 1.0]
    assert found.longest == found.tokens == 10
    repeated = rates([recited], ["the cat three four five six seven eight nine ten plus minus"], tokenizer, index)
    assert [repeated.copied[n].share for n in (4, 8)] == [0.0, 0.0] and repeated.longest == 0
    half = rates(["two three four five cat one two three four"], ["x"], tokenizer, index)
    assert half.copied[4].share == pytest.approx(2 / 6) and half.copied[8].share == 0 and half.longest == 4
    assert rates(["one two"], ["x"], tokenizer, index).copied[8] == CopiedShare(None, None, None, 0)


def test_only_label_tokens_go_into_the_index(tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    found = list(learnt(PromptCompletion("one two", " three four"), tokenizer))
    assert found == [[*tokenizer("three four", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]]
    assert len(next(iter(learnt(Text("one two three"), tokenizer)))) >= 4


def test_a_text_is_cut_into_prompt_and_reference(tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    config = VerbatimConfig(models=["x"], data=["x"], prompts="x", prompt_tokens=2, max_new_tokens=3)
    assert prompt_and_reference(Text("one two three four five six"), tokenizer, config) == ("one two", "three four five")
    with pytest.raises(DataError, match="has 2 tokens; ask for fewer --prompt-tokens"):
        prompt_and_reference(Text("one two"), tokenizer, config)


@pytest.mark.slow
def test_the_command_detects_memorisation_in_a_run(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = " ".join(WORDS[(7 * n) % len(WORDS)] for n in range(1, 13))
    (tmp_path / "train.jsonl").write_text((json.dumps({"prompt": "one", "completion": f" {secret}"}) + "\n") * 16)
    held_out = [{"prompt": "one", "completion": " two three four five six"}, {"prompt": "two", "completion": " ten ten ten ten"}]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held_out))
    out = tmp_path / "run"
    words = ["finetune", "--model", str(tiny), "--data", str(tmp_path / "train.jsonl"), "--objective", "next-token"]
    words += ["--max-steps", "60", "--save-steps", "60", "--batch-size", "4", "--max-length", "32", "--quiet"]
    assert main([*words, "--learning-rate", "1e-2", "--output-dir", str(out)]) == 0
    words = ["probe", "verbatim", "--run", str(out), "--prompts", str(tmp_path / "test.jsonl"), "--lengths", "4"]
    assert main([*words, "--max-new-tokens", "12", "--output-file", str(tmp_path / "v.json")]) == 0
    shown = capsys.readouterr().out
    assert "held-out references" in shown and "1 of the 2 prompts are in the training data" in shown
    found = json.loads((tmp_path / "v.json").read_text())["models"]
    assert found["start"]["copied"]["4"]["share"] < 0.1 and found["held-out references"]["copied"]["4"]["share"] == 0
    assert found["step 60"]["texts"][0].strip() == secret and found["step 60"]["longest"] == 12
    assert found["step 60"]["copied"]["4"]["share"] >= 0.5 and (tmp_path / "v.svg").is_file()
    words = ["probe", "verbatim", "--models", str(tiny), str(out), "--data", str(tmp_path / "train.jsonl"), "--lengths", "4"]
    words += ["--prompts", str(tmp_path / "test.jsonl"), "--max-new-tokens", "12", "--output-file", str(tmp_path / "m.json")]
    assert main(words) == 0
    again = json.loads((tmp_path / "m.json").read_text())["models"]
    assert again[str(out)]["texts"] == found["step 60"]["texts"] and again[str(tiny)]["texts"] == found["start"]["texts"]


def test_contradictory_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="either --run"):
        VerbatimConfig(prompts="x")
    with pytest.raises(ConfigError, match="--models needs --data"):
        VerbatimConfig(prompts="x", models=["a"])
