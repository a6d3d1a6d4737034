"""Scores survive whatever happens after them, and there are no scores without data."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from headway.cli import main
from headway.errors import DataError
from headway.evaluation import EvalConfig, evaluate, run
from headway.evaluation.tasks import TASKS
from headway.model import HeadwayModel
from tests.training.recipes import save_model

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}assistant {% endif %}"
)
CHATS = [
    [{"role": "user", "content": "one two"}, {"role": "assistant", "content": "three"}],
    [{"role": "assistant", "content": "four"}, {"role": "user", "content": "five"}, {"role": "assistant", "content": "six"}],
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model with heads and a chat template."""
    trunk, folder = save_model(tmp_path / "trunk"), tmp_path / "model"
    HeadwayModel.from_trunk(str(trunk), count=1).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(trunk)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def rows(path: Path, *values: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def config(model: Path, data: Path, **settings: Any) -> EvalConfig:
    return EvalConfig(**{"model": str(model), "task": "held-out", "data": str(data), "speed_prompts": 2} | settings)


@pytest.mark.slow
def test_conversations_are_scored_and_timed_on_their_prompts(model: Path, tmp_path: Path) -> None:
    data = rows(tmp_path / "chats.jsonl", *({"messages": chat} for chat in CHATS))
    result: Any = evaluate(config(model, data))["held-out"]
    assert result.metrics.tokens > 0 and result.speed is not None and result.speed.identical


def test_conversations_without_a_prompt_are_scored_and_not_timed(model: Path, tmp_path: Path) -> None:
    data = rows(tmp_path / "chats.jsonl", {"messages": CHATS[1]})
    result: Any = evaluate(config(model, data))["held-out"]
    assert result.metrics.tokens > 0 and result.speed is None


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), DataError("no prompts"), ZeroDivisionError("0 seconds")])
def test_scores_are_kept_when_timing_fails(model: Path, tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    data, output = rows(tmp_path / "text.jsonl", {"text": "one two three four five"}), tmp_path / "results.json"

    def fail(*_: object) -> None:
        assert json.loads(output.read_text())["losses"]  # written before timing starts
        raise error

    monkeypatch.setattr(run, "measure_speed", fail)
    with pytest.warns(UserWarning, match=f"The speed was not measured: .*{error}"):
        result: Any = evaluate(config(model, data, output_file=output))["held-out"]
    assert result.speed is None and json.loads(output.read_text())["losses"] == result.metrics.losses


def test_an_interrupt_while_timing_leaves_the_scores_in_the_file(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, output = rows(tmp_path / "problems.jsonl", {"prompt": "one two", "completion": " three"}), tmp_path / "results.json"

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "measure_speed", interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluate(config(model, data, task="word-problems", max_new_tokens=4, output_file=output))
    assert json.loads(output.read_text())["exact_match"] == 0


def test_data_of_which_nothing_is_left_is_an_error(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = rows(tmp_path / "long.jsonl", {"prompt": "one " * 30, "completion": "two"})
    assert main(["eval", "--model", str(model), "--task", "held-out", "--data", str(data), "--max-length", "8"]) == 2
    shown = capsys.readouterr().err
    assert "1 of 1 examples are longer than 8 tokens" in shown and "No token is left to score" in shown


# settings that generation_config.json files of real models carry; True: the engine decodes them as they are
GENERATION_CONFIGS: dict[str, tuple[dict[str, Any], bool]] = {
    "sampling defaults": ({"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "repetition_penalty": 1.05}, True),
    "stop strings": ({"stop_strings": ["three"]}, True),
    "a stop string that is no list": ({"stop_strings": "three"}, True),
    "a length": ({"max_length": 20}, True),
    "keys of a model's own": ({"chat_format": "chatml", "stop_words_ids": [[2]]}, True),
    "suppressed tokens": ({"suppress_tokens": [5], "begin_suppress_tokens": [6]}, True),
    "beams": ({"num_beams": 4}, False),
    "contrastive search": ({"penalty_alpha": 0.6, "top_k": 4}, False),
}


@pytest.mark.parametrize("name", GENERATION_CONFIGS)
def test_models_with_any_generation_config_are_evaluated(
    model: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, supported = GENERATION_CONFIGS[name]
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": 0, **settings}))
    data, output = rows(tmp_path / "d.jsonl", {"prompt": "one two", "completion": " three"}), tmp_path / "results.json"
    words = ["eval", "--model", str(model), "--task", "word-problems", "--data", str(data), "--max-new-tokens", "8"]
    code = main([*words, "--output-file", str(output)])
    if supported:
        assert code == 0 and json.loads(output.read_text())["speed"]["identical"]
    else:
        assert code == 2 and 'generation_config="none"' in capsys.readouterr().err
    assert main([*words, "--output-file", str(output), "--generation-config", "none"]) == 0
    assert json.loads(output.read_text())["speed"]["identical"]
    assert "speed was not measured" not in capsys.readouterr().err


def test_a_probe_answers_with_beams_in_the_generation_config_if_that_is_left_out(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": 0, "num_beams": 2}))
    data = rows(tmp_path / "q.jsonl", {"problem": "one two", "answer": "three"}, {"problem": "four", "answer": "five"})
    words = ["probe", "simpleqa", "--model", str(model), "--data", str(data), "--max-new-tokens", "4"]
    assert main(words) == 2
    assert "num_beams" in capsys.readouterr().err
    assert main([*words, "--generation-config", "none"]) == 0


@pytest.mark.parametrize("task", ["held-out", "word-problems"])
def test_a_tokenizer_larger_than_the_embedding_is_one_clear_line(
    model: Path, tmp_path: Path, task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{n}|>" for n in range(100)]})
    tokenizer.save_pretrained(model)
    data = rows(tmp_path / "d.jsonl", {"prompt": "<|99|>one two", "completion": " three"})
    assert main(["eval", "--model", str(model), "--task", task, "--data", str(data)]) == 2
    error = capsys.readouterr().err
    assert "has no embedding" in error and len([line for line in error.splitlines() if "error:" in line]) == 1


def test_listing_the_tasks_imports_neither_torch_nor_transformers() -> None:
    code = "import sys; from headway.cli import main; main(['eval', '--list-tasks']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and all(name in done.stdout for name in TASKS)
