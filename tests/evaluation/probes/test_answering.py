"""Answers are the model's own: with any drafts, in any batch, and with any part of them in the log."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from headway import HeadwayModel, embedded_path
from headway.errors import ConfigError, DataError
from headway.evaluation.probes.answer_log import AnswerLog, fingerprint
from headway.evaluation.probes.answering import Answerer, subsample
from tests.tiny import tiny_trunk
from tests.training.recipes import save_tokenizer

PROMPTS = ["Once upon a time", "3 + 4 =", "The cat", "import os", "Lily and Tom went to the park and"]


@pytest.fixture(scope="module")
def model() -> HeadwayModel:
    return HeadwayModel.from_pretrained("embedded").eval()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(embedded_path())


def test_answers_are_those_of_transformers_with_heads_and_without(model, tokenizer) -> None:
    expected = []
    for prompt in PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt")
        with torch.inference_mode():
            out = model.trunk.generate(
                inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=12, do_sample=False
            )
        expected.append(tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    for speculative in (False, True):
        assert Answerer(model, tokenizer, max_new_tokens=12, batch_size=2, speculative=speculative)(PROMPTS) == expected


def test_a_sampled_answer_depends_on_its_seed_alone(model, tokenizer) -> None:
    def answers(prompts: list[str], seeds: list[int], **how: object) -> list[str]:
        return Answerer(model, tokenizer, max_new_tokens=10, temperature=0.9, **how)(prompts, seeds)

    together = answers(PROMPTS[:3], [7, 8, 9], batch_size=3)
    assert together == answers(PROMPTS[:3], [7, 8, 9], batch_size=2, speculative=False)
    assert together[1:2] == answers(PROMPTS[1:2], [8])
    assert len(set(answers(PROMPTS[:1] * 6, list(range(6))))) > 1


def test_a_stop_string_ends_an_answer(model, tokenizer) -> None:
    whole = Answerer(model, tokenizer, max_new_tokens=40)(["def f(x):"])[0]
    assert "\n" in whole
    cut = Answerer(model, tokenizer, max_new_tokens=40, stop=["\n"])(["def f(x):"])[0]
    assert whole.startswith(cut) and cut.split("\n")[0] == whole.split("\n")[0] and len(cut) < len(whole)


def test_a_trunk_unsuited_to_ragged_batches_answers_as_well(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    words = AutoTokenizer.from_pretrained(tmp_path)
    odd = tiny_trunk(
        "gpt_neo", num_hidden_layers=2, attention_types=[[["global", "local"], 1]], window_size=4, intermediate_size=48
    )
    model = HeadwayModel(odd, None).eval()
    found = Answerer(model, words, max_new_tokens=6, batch_size=2)(["one two three", "cat", "on a mat in rain"])
    for prompt, text in zip(["one two three", "cat", "on a mat in rain"], found, strict=True):
        ids = words(prompt, return_tensors="pt")["input_ids"]
        out = odd.generate(ids, max_new_tokens=6, do_sample=False, attention_mask=torch.ones_like(ids))
        assert text == words.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def test_logged_answers_are_not_computed_again(model, tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.answers.jsonl"

    def answerer(**how: object) -> Answerer:
        return Answerer(model, tokenizer, **{"max_new_tokens": 6, "answer_log": AnswerLog(path), "identity": "m"} | how)

    first = answerer()(PROMPTS[:3])
    with path.open("a") as file:
        file.write('{"key": "cut o')  # the power failed here
    assert answerer()([*PROMPTS[:3], PROMPTS[3], PROMPTS[3]])[:3] == first
    assert len(path.read_text().splitlines()) == 5 and len(AnswerLog(path).texts) == 4
    answered = answerer()(PROMPTS[:4])

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("headway.decoding.Engine.submit", forbidden)
    assert answerer()(PROMPTS[:4]) == answered and answered[:3] == first
    for other in ({"identity": "another"}, {"max_new_tokens": 7}, {"speculative": False}, {"stop": ["x"]}):
        with pytest.raises(AssertionError, match="computed again"):
            answerer(**other)(PROMPTS[:1])
    with pytest.raises(AssertionError, match="computed again"):
        answerer()(PROMPTS[:1], [0])  # sampled, not greedy


def test_an_interrupted_call_keeps_its_finished_answers(model, tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headway.decoding import Engine

    step, count = Engine._step, [0]

    def tiring(self: Engine) -> list:
        count[0] += 1
        if count[0] > 12:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Engine, "_step", tiring)
    path = tmp_path / "a.answers.jsonl"
    with pytest.raises(KeyboardInterrupt):
        Answerer(model, tokenizer, max_new_tokens=8, batch_size=1, speculative=False, answer_log=AnswerLog(path))(PROMPTS)
    assert 1 <= len(AnswerLog(path).texts) < len(PROMPTS)


def test_a_prompt_beyond_the_context_length_is_an_error(model, tokenizer) -> None:
    answer = Answerer(model, tokenizer, max_new_tokens=8)
    assert answer.context_length is not None
    with pytest.raises(DataError, match=f"are more than the {answer.context_length} tokens"):
        answer(["word " * answer.context_length])
    with pytest.raises(ConfigError, match="no chat template"):
        Answerer(model, tokenizer, max_new_tokens=8, chat=True)
    with pytest.raises(DataError, match="empty"):
        answer([""])


def test_changed_weights_have_another_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    before = fingerprint(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"abcd")
    assert fingerprint(str(tmp_path)) != before


def test_a_subsample_keeps_the_order_and_depends_on_the_seed() -> None:
    assert subsample("abcdef", 3, 1) == subsample("abcdef", 3, 1) == sorted(subsample("abcdef", 3, 1))
    assert subsample("abc", None, 0) == subsample("abc", 9, 0) == ["a", "b", "c"]
