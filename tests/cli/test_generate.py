"""`headway generate` turns flags into requests and prints completions."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer, GenerationConfig

import headway.decoding.completing
from headway.cli import main
from headway.cli.generate import ACCEPTANCE_RULES
from headway.decoding.draft_length import DraftLengthController
from headway.decoding.verify import RULES
from tests.tiny import tiny_trunk


@pytest.fixture
def model(shared: Path) -> str:
    return str(shared / "models" / "stories260k")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Arguments of the last call of `complete`."""
    last = SimpleNamespace()
    complete = headway.decoding.completing.complete

    def record(model: Any, tokenizer: Any, requests: Any, **options: Any) -> Any:
        vars(last).update(model=model, requests=requests, options=options)
        return complete(model, tokenizer, requests, **options)

    monkeypatch.setattr(headway.decoding.completing, "complete", record)
    return last


def test_a_prompt_streams_and_ends_with_its_speed(model: str, asked: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", "--model", model, "--prompt", "Once upon", "--max-new-tokens", "8", "--stop", "zzz", "qqq"]
    assert main([*words, "--json"]) == 0
    text = json.loads(capsys.readouterr().out)["completions"][0]["text"]
    assert asked.options["on_tokens"] is None
    assert main(words) == 0
    shown = capsys.readouterr()
    assert asked.options["on_tokens"] is not None and asked.requests[0].sampling.max_new_tokens == 8
    assert asked.requests[0].sampling.stop_strings == ("zzz", "qqq")
    assert shown.out.strip() == text.strip()
    assert "8 tokens, " in shown.err and " per second, 1.00 per forward" in shown.err


def test_the_speed_names_acceptance_by_position(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--prompt", "12 + 5 =", "--max-new-tokens", "8"]) == 0
    assert "acceptance by draft position: " in capsys.readouterr().err


def test_json_holds_texts_and_statistics_and_stdout_nothing_else(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", "--model", model, "--prompt", "One", "--prompt", "Two or three", "--max-new-tokens", "5"]
    assert main([*words, "--json", "--no-speculative"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [item["prompt"] for item in found["completions"]] == ["One", "Two or three"]
    assert [item["finish_reason"] for item in found["completions"]] == ["length", "length"]
    assert found["stats"]["tokens"] == 10 and found["stats"]["tokens_per_forward"] == 1 and found["stats"]["acceptance"] == []


def test_a_stop_string_ends_the_text_and_stays(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--model", model, "--prompt", "Once upon a time", "--stop", "a", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["completions"][0]
    assert found["text"].count("a") == 1 and found["finish_reason"] == "stop"


def test_a_file_holds_a_prompt_in_each_line(
    model: str, asked: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.txt").write_text("One\n\nTwo or three little pigs\n")
    assert main(["generate", "--model", model, "--prompts", str(tmp_path / "prompts.txt"), "--max-new-tokens", "3"]) == 0
    tokenizer = AutoTokenizer.from_pretrained(model)
    assert [tokenizer.decode(request.prompt, skip_special_tokens=True).strip() for request in asked.requests] == [
        "One",
        "Two or three little pigs",
    ]
    assert "Two or three little pigs" in capsys.readouterr().out


def test_a_dash_reads_standard_input(model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Once upon a time\n"))
    assert main(["generate", "--model", model, "--prompt", "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["completions"][0]["prompt"] == "Once upon a time"


def test_settings_of_sampling_are_passed_only_with_do_sample(
    model: str, asked: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["generate", "--model", model, "--prompt", "x", "y", "--max-new-tokens", "3", "--top-k", "5", "--seed", "9"]
    assert main(common) == 0
    assert asked.requests[0].sampling.top_k is None and asked.requests[0].sampling.acceptance == "coupled"
    assert main([*common, "--do-sample", "--acceptance", "multi-candidate", "--min-p", "0.1"]) == 0
    first, second = (request.sampling for request in asked.requests)
    assert (first.top_k, first.top_p, first.seed, second.seed) == (5, 1.0, 9, 10)
    assert first.acceptance == "multi-candidate" and first.arguments["min_p"] == 0.1
    assert main([*common, "--acceptance", "several"]) == 2
    assert "acceptance must be coupled|token|block|multi-candidate|typical, not 'several'" in capsys.readouterr().err


def test_the_acceptance_rules_of_the_command_line_are_those_of_decoding() -> None:
    assert set(ACCEPTANCE_RULES) == set(RULES)


def test_dtype_compile_and_the_batch_size_are_passed(model: str, asked: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    common = ["generate", "--model", model, "--prompt", "x", "--max-new-tokens", "2"]
    assert main(common) == 0
    assert (asked.options["compile"], asked.options["max_batch_size"]) == (False, 16)
    monkeypatch.setattr(headway.decoding.completing, "complete", lambda *_, **options: vars(asked).update(options=options) or [])
    assert main([*common, "--compile", "--batch-size", "3"]) == 0
    assert (asked.options["compile"], asked.options["max_batch_size"]) == (True, 3)


@pytest.fixture
def awkward(tmp_path: Path, model: str) -> Path:
    """A tiny model made for 16 tokens, with settings in its generation_config.json that Headway refuses."""
    trunk = tiny_trunk("llama", vocab_size=512, max_position_embeddings=16)
    trunk.generation_config = GenerationConfig(eos_token_id=2, num_beams=4)
    trunk.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path)
    return tmp_path


def test_settings_of_the_model_that_cannot_be_followed_can_be_left_out(awkward: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", "--model", str(awkward), "--prompt", "x", "--max-new-tokens", "2"]
    assert main(words) == 2
    assert "num_beams" in capsys.readouterr().err
    assert main([*words, "--generation-config", "none"]) == 0


def test_a_prompt_beyond_the_context_is_noted_or_refused(awkward: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "generate",
        "--model",
        str(awkward),
        "--prompt",
        "a b c d " * 10,
        "--max-new-tokens",
        "2",
        "--generation-config",
        "none",
    ]
    assert main(words) == 0
    error = capsys.readouterr().err
    assert (
        "headway: note: The prompt has 42 tokens, but this model was made for 16" in error
        and "longer than the specified maximum" not in error
    )
    assert main([*words, "--strict-context"]) == 2
    assert capsys.readouterr().err.startswith("headway: error: ")


def test_a_trunk_without_exact_batches_decodes_autoregressively(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    tiny_trunk("llama", vocab_size=512, max_position_embeddings=16, rope_parameters=rope).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path)
    words = ["generate", "--model", str(tmp_path), "--max-new-tokens", "24", "--json", "--prompt", "Once", "upon a time"]
    assert main(words) == 0
    assert [item["finish_reason"] for item in json.loads(capsys.readouterr().out)["completions"]] == ["length", "length"]


def test_a_model_is_loaded_in_the_type_asked_for_and_rows_wait_their_turn(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", "--model", str(shared / "models" / "stories260k"), "--max-new-tokens", "8", "--json", "--prompt"]
    words += ["Lily", "Tom and", "Once upon a time"]
    assert main([*words, "--do-sample", "--seed", "99999999999999999999"]) == 0
    whole = json.loads(capsys.readouterr().out)["completions"]
    assert main([*words, "--do-sample", "--seed", "99999999999999999999", "--batch-size", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["completions"] == whole
    assert main([*words, "--dtype", "bfloat16"]) == 0
    assert len(json.loads(capsys.readouterr().out)["completions"]) == 3


def test_chat_without_a_template_is_refused(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--model", model, "--prompt", "x", "--chat"]) == 2
    assert "no chat template" in capsys.readouterr().err


def test_an_unknown_device_is_refused(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--model", model, "--prompt", "x", "--device", "abacus"]) == 2
    assert "device 'abacus' cannot be used here" in capsys.readouterr().err


def test_ngrams_and_assistants_draft_and_change_nothing(
    shared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        DraftLengthController, "choose_draft_length", lambda self, rows, most, *_: most
    )  # even if drafts do not pay
    folder = str(shared / "models" / "stories260k")  # it has no heads
    found = []
    for words in (["--no-speculative"], [], ["--drafter", "ngram"], ["--assistant", folder]):
        assert main(["generate", "--model", folder, "--prompt", "Lily and Tom", "--max-new-tokens", "60", "--json", *words]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert len({answer["completions"][0]["text"] for answer in found}) == 1
    plain, without, ngram, assistant = (answer["stats"]["tokens_per_forward"] for answer in found)
    assert plain == without == 1 and ngram > 1 and assistant > 1


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--drafter", "ngrams"], "drafter must be heads|ngram|none, not 'ngrams'"),
        (["--drafter", "ngram", "--assistant", "x"], "exclude each other"),
        (["--no-speculative", "--assistant", "x"], "exclude each other"),
        (["--assistant", "no-such-folder"], "'no-such-folder' is neither a folder here nor a model"),
        (["--batch-size", "0"], "batch_size must be at least 1"),
        (["--max-new-tokens", "0"], "max_new_tokens must be at least 1"),
        (["--dtype", "int8"], "dtype must be saved|float32|bfloat16|float16, not 'int8'"),
    ],
)
def test_a_setting_that_cannot_be_served_is_refused(
    model: str, words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "--model", model, "--prompt", "x", *words]) == 2
    assert complaint in capsys.readouterr().err


def test_a_prompt_with_a_bos_token_is_not_given_another() -> None:
    from headway.cli.generate import _encode
    from tests.data.tokenizers import LLAMA3, byte_level

    names = ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
    tokenizer = byte_level(names, "<|eot_id|>", LLAMA3, "<|begin_of_text|>", prepend=True)
    plain, rendered = _encode(tokenizer, ["Hi", "<|begin_of_text|>Hi"], chat=False)
    assert plain == rendered and plain.count(tokenizer.bos_token_id) == 1
    (chat,) = _encode(tokenizer, ["Hi"], chat=True)
    messages = [{"role": "user", "content": "Hi"}]
    assert chat == tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
