"""Samples of the model itself: those that `generate` draws, once each, whatever happened on the way."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from headway.cli import main
from headway.data import load_examples
from headway.errors import ConfigError, DataError
from headway.model import HeadwayModel
from headway.training import distill, train_heads
from headway.training.configs import DistillConfig, HeadsTrainConfig
from headway.training.stages.distill import text_of
from tests.training.recipes import TEXT, save_model

SETTINGS = {"max_new_tokens": 24, "samples": 2, "temperature": 0.8, "top_p": 0.9, "seed": 3, "batch_size": 5, "quiet": True}


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with heads whose every token is a word."""
    folder = save_model(tmp_path_factory.mktemp("talking"), vocab_size=4 + len(TEXT.split()))
    model = HeadwayModel.from_trunk(folder, "parallel", 2)
    model.save_pretrained(folder)
    return str(folder)


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_model_with_beams_in_its_generation_config_is_sampled_without_it(talking: str, data: str, tmp_path: Path) -> None:
    folder = tmp_path / "beams"
    shutil.copytree(talking, folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, "num_beams": 4}))
    words = ["heads", "distill", "--model", str(folder), "--data", data, "--limit", "2", "--max-new-tokens", "4", "--quiet"]
    words += ["--output-file", str(tmp_path / "own.jsonl")]
    assert main(words) == 2
    assert main([*words, "--generation-config", "none", "--no-resume"]) == 0
    assert len(lines(tmp_path / "own.jsonl")) == 2


@pytest.mark.slow
def test_generate_draws_each_sample_from_its_seed_and_the_end_is_recorded(talking: str, data: str, tmp_path: Path) -> None:
    config = DistillConfig(model=talking, data=data, output_file=tmp_path / "own.jsonl", limit=12, **SETTINGS)
    found = distill(config)
    model, tokenizer = HeadwayModel.from_pretrained(talking).eval(), AutoTokenizer.from_pretrained(talking)
    prompts = [example.prompt for example in load_examples(data, limit=12)]
    samples = lines(config.output_file)
    assert [(line["number"], line["sample"]) for line in samples] == [(n, s) for n in range(12) for s in range(2)]
    assert len({line["seed"] for line in samples}) == found.samples == 24
    how = {"max_new_tokens": 24, "do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 0}
    for line in samples:
        assert line["prompt"] == prompts[line["number"]]
        ids = tokenizer(line["prompt"], return_tensors="pt")["input_ids"]
        new = model.generate(ids, speculative=False, seed=line["seed"], **how).sequences[0, ids.shape[1] :].tolist()
        assert line["tokens"] == len(new) and line["finish_reason"] == ("stop" if new[-1] == 2 else "length")
        assert line["completion"].strip() == tokenizer.decode(new, skip_special_tokens=True)
    assert {line["finish_reason"] for line in samples} == {"stop", "length"}
    assert found.tokens == found.drawn == sum(line["tokens"] for line in samples)
    assert found.cut_off == sum(line["finish_reason"] == "length" for line in samples)


def test_batches_drafts_and_order_change_no_sample(talking: str, data: str, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    HeadwayModel.from_trunk(talking, count=0).save_pretrained(plain)
    AutoTokenizer.from_pretrained(talking).save_pretrained(plain)
    files = []
    for model, rows in ((talking, 1), (talking, 16), (str(plain), 7)):
        files.append(tmp_path / f"{len(files)}.jsonl")
        distill(DistillConfig(model=model, data=data, output_file=files[-1], limit=8, **{**SETTINGS, "batch_size": rows}))
    assert files[0].read_bytes() == files[1].read_bytes() == files[2].read_bytes()


@pytest.mark.slow
def test_a_killed_run_ends_with_the_file_of_an_uninterrupted_run(talking: str, data: str, tmp_path: Path) -> None:
    config = DistillConfig(model=talking, data=data, output_file=tmp_path / "whole.jsonl", **{**SETTINGS, "max_new_tokens": 80})
    distill(config)
    out = tmp_path / "killed.jsonl"
    unfinished = tmp_path / "killed.jsonl.unfinished"
    flags = f"--model {talking} --data {data} --output-file {out} --max-new-tokens 80 --samples 2 --temperature 0.8 --top-p 0.9"
    command = [
        sys.executable,
        "-m",
        "headway.cli",
        "heads",
        "distill",
        *flags.split(),
        "--seed",
        "3",
        "--batch-size",
        "3",
        "--quiet",
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and (not unfinished.exists() or unfinished.read_bytes().count(b"\n") < 20):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not out.exists()
    with unfinished.open("ab") as file:
        file.write(b'{"prompt": "one two", "comp')  # what a kill in the middle of a line leaves
    with pytest.raises(ConfigError, match=r"killed.jsonl.unfinished has samples of other settings \(temperature: 0.8, not 0.7\)"):
        distill(dataclasses.replace(config, output_file=out, temperature=0.7))
    found = distill(dataclasses.replace(config, output_file=out))
    assert out.read_bytes() == config.output_file.read_bytes()
    assert 0 < found.drawn < found.tokens
    assert sorted(file.name for file in tmp_path.iterdir() if "killed" in file.name) == [out.name, f"{out.name}.settings.json"]


def test_a_finished_file_stays_and_is_not_mixed_with_other_settings(talking: str, data: str, tmp_path: Path) -> None:
    config = DistillConfig(model=talking, data=data, output_file=tmp_path / "own.jsonl", limit=4, **SETTINGS)
    first = distill(config)
    before = config.output_file.read_bytes()
    again = distill(dataclasses.replace(config, batch_size=2))
    assert (again.samples, again.tokens, again.drawn) == (first.samples, first.tokens, 0)
    with pytest.raises(ConfigError, match=r"limit: 4, not 5.*prompts"):
        distill(dataclasses.replace(config, limit=5))
    assert config.output_file.read_bytes() == before
    distill(dataclasses.replace(config, limit=5, resume=False))
    assert len(lines(config.output_file)) == 10 and config.output_file.read_bytes().startswith(
        before
    )  # a prompt more changes no other sample
    kept = [line for line in config.output_file.read_text().splitlines(keepends=True) if '"stop"' in line]
    config.output_file.write_text(
        "".join(kept) + '{"prompt": "one", "completion": "two"}\n'
    )  # finished is finished, whoever edited it
    edited = distill(dataclasses.replace(config, limit=5))
    assert (edited.samples, edited.drawn, edited.cut_off) == (len(kept) + 1, 0, 0)
    stranger = tmp_path / "stranger.jsonl"
    stranger.write_text('{"text": "mine"}\n')
    for resume in (True, False):
        with pytest.raises(ConfigError, match="no settings of samples stand beside it"):
            distill(dataclasses.replace(config, output_file=stranger, resume=resume))
    assert stranger.read_text() == '{"text": "mine"}\n'


def test_samples_of_another_model_under_the_same_name_are_not_mixed_in(data: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", vocab_size=4 + len(TEXT.split()))
    config = DistillConfig(model=str(folder), data=data, output_file=tmp_path / "own.jsonl", limit=2, **SETTINGS)
    distill(config)
    model = HeadwayModel.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.trunk.model.layers[1].parameters():
            parameter.mul_(1.5)
    model.save_pretrained(folder)
    with pytest.raises(ConfigError, match="weights: "):
        distill(config)


def test_heads_learn_from_the_file_as_it_is(talking: str, data: str, tmp_path: Path) -> None:
    out = tmp_path / "own.jsonl"
    flags = ["--model", talking, "--data", data, "--output-file", str(out), "--limit", "12", "--max-new-tokens", "16"]
    assert main(["heads", "distill", *flags]) == 0
    settings = {"objective": "distillation", "completion_only": True, "max_steps": 2, "max_length": 48, "quiet": True}
    train_heads(HeadsTrainConfig(model=talking, data=str(out), output_dir=tmp_path / "heads", **settings))
    assert (tmp_path / "heads" / "headway.safetensors").is_file()


CHAT = "{% for m in messages %}{{ m.role }} : {{ m.content }} </s> {% endfor %}{% if add_generation_prompt %}assistant :{% endif %}"


def test_the_last_answer_of_a_conversation_is_replaced_by_a_sample(talking: str, tmp_path: Path) -> None:
    folder = tmp_path / "chat"
    HeadwayModel.from_pretrained(talking).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(talking)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    asked = {"role": "user", "content": "one plus two"}
    conversations = [[asked, {"role": "assistant", "content": "is three"}], [asked], [{"role": "assistant", "content": "mat"}]]
    data = tmp_path / "chat.jsonl"
    data.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in conversations))
    config = DistillConfig(model=str(folder), data=str(data), output_file=tmp_path / "own.jsonl", **{**SETTINGS, "samples": 1})
    found = distill(config)
    assert (found.samples, found.left_out) == (2, 1)
    for line in lines(config.output_file):
        assert line["messages"][:-1] == [asked] and line["messages"][-1]["role"] == "assistant"
        ids = tokenizer.apply_chat_template([asked], add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
        how = {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 0, "max_new_tokens": 24}
        new = HeadwayModel.from_pretrained(folder).eval().generate(ids, seed=line["seed"], **how).sequences[0, ids.shape[1] :]
        assert line["messages"][-1]["content"] == tokenizer.decode(new, skip_special_tokens=True)


def test_texts_give_their_first_tokens_and_long_prompts_are_left_out(talking: str, tmp_path: Path) -> None:
    data = tmp_path / "texts.jsonl"
    rows = [{"text": "the cat sat on a mat in rain"}, {"prompt": " ".join(["one"] * 30), "completion": "two"}, {"text": ""}]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = DistillConfig(
        model=talking, data=str(data), output_file=tmp_path / "own.jsonl", prompt_tokens=3, max_prompt_tokens=20, **SETTINGS
    )
    found = distill(config)
    assert found.left_out == 2 and "prompts left out, empty or too long: 2" in str(found)
    assert {(line["number"], line["prompt"]) for line in lines(config.output_file)} == {(0, "the cat sat")}
    with pytest.raises(DataError, match="all 3 prompts are empty or have more than 2 tokens"):
        distill(dataclasses.replace(config, max_prompt_tokens=2, output_file=tmp_path / "none.jsonl"))


def test_the_text_of_a_sample_encodes_to_its_tokens(shared: Path) -> None:
    """This tokenizer drops the space before the first word that it decodes, and adds one before the first that it encodes."""
    tokenizer = AutoTokenizer.from_pretrained(shared / "models" / "stories260k")
    tokens = tokenizer("Once upon a time, there was a little girl.")["input_ids"]
    for cut in range(2, len(tokens)):
        prompt, new = tokens[:cut], tokens[cut:]
        text = text_of(tokenizer, prompt, new)
        if tokenizer.convert_ids_to_tokens(new[0]).startswith("▁"):
            assert tokenizer(text, add_special_tokens=False)["input_ids"] == new


def test_a_model_in_half_precision_gives_the_same_file_in_any_batch_where_it_computes_in_float32(data: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "half", vocab_size=4 + len(TEXT.split()))
    HeadwayModel.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    found = []
    for rows in (1, 16):
        config = DistillConfig(
            model=str(folder), data=data, output_file=tmp_path / f"{rows}.jsonl", limit=8, float32=True, **SETTINGS
        )
        distill(dataclasses.replace(config, batch_size=rows))
        found.append(config.output_file.read_bytes())
    assert found[0] == found[1] and HeadwayModel.from_pretrained(folder).trunk.dtype == torch.bfloat16
