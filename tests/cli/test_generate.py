"""`headway generate` hands on what was asked for and prints what came back."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import headway.model.loading
from headway.cli import main
from headway.decoding.draft_length import DraftLengthController

STATS = SimpleNamespace(
    tokens=3,
    forwards=2,
    tokens_per_forward=1.5,
    tokens_per_second=30.0,
    acceptance=[0.5, 0.25],
    seconds={"verify": 0.1},
)


class Fake:
    """A model that always continues with the tokens 3, 4, 5 and remembers what it was asked."""

    device = torch.device("cpu")
    trunk = SimpleNamespace(get_input_embeddings=lambda: torch.nn.Embedding(512, 2))
    asked: dict[str, Any]

    @classmethod
    def from_pretrained(cls, folder: str, **rest: Any) -> "Fake":
        return cls()

    def to(self, device: torch.device) -> "Fake":
        return self

    def eval(self) -> "Fake":
        return self

    def generate(self, input_ids: torch.Tensor, streamer: Any = None, **rest: Any) -> SimpleNamespace:
        Fake.asked = {"input_ids": input_ids, "streamer": streamer, **rest}
        added = torch.tensor([[3, 4, 5]]).expand(len(input_ids), -1)
        if streamer is not None:
            streamer.put(input_ids)
            streamer.put(added[0])
            streamer.end()
        return SimpleNamespace(sequences=torch.cat([input_ids, added], 1), stats=STATS)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, shared: Path) -> str:
    monkeypatch.setattr(headway.model.loading, "HeadwayModel", Fake)
    return str(shared / "models" / "stories260k")


def test_one_prompt_streams_and_ends_with_its_speed(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--model", model, "--prompt", "Once upon", "--max-new-tokens", "3", "--stop", "a", "b"]) == 0
    shown = capsys.readouterr()
    assert Fake.asked["streamer"] is not None and Fake.asked["max_new_tokens"] == 3
    assert Fake.asked["stop_strings"] == ["a", "b"] and not Fake.asked["plain"]
    assert "3 tokens, 30.0 a second, 1.50 a forward, drafts kept by position: 50% 25%" in shown.err
    assert "a forward" not in shown.out


def test_json_holds_text_and_figures_and_nothing_else_is_on_stdout(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--model", model, "--prompt", "One", "--prompt", "Two or three", "--json", "--no-speculative"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [item["prompt"] for item in found["completions"]] == ["One", "Two or three"]
    assert found["stats"]["tokens_per_forward"] == 1.5 and found["stats"]["acceptance"] == [0.5, 0.25]
    assert Fake.asked["plain"] and Fake.asked["streamer"] is None


def test_prompts_of_different_length_are_padded_on_the_left(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prompts.txt").write_text("One\n\nTwo or three little pigs\n")
    assert main(["generate", "--model", model, "--prompts", str(tmp_path / "prompts.txt")]) == 0
    mask = Fake.asked["attention_mask"]
    assert mask.shape[0] == 2 and mask[1].all() and not mask[0, 0] and mask[0, -1]
    assert "Two or three little pigs" in capsys.readouterr().out


def test_a_dash_reads_standard_input(model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Once upon a time\n"))
    assert main(["generate", "--model", model, "--prompt", "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["completions"][0]["prompt"] == "Once upon a time"


def test_sampling_arguments_go_on_only_when_sampling(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["generate", "--model", model, "--prompt", "x", "--top-k", "5", "--seed", "9"]
    main(common)
    assert "top_k" not in Fake.asked and "acceptance" not in Fake.asked
    main([*common, "--do-sample", "--acceptance", "multi-candidate"])
    assert (Fake.asked["top_k"], Fake.asked["top_p"], Fake.asked["seed"]) == (5, 1.0, 9)
    assert Fake.asked["acceptance"] == "multi-candidate"
    assert main([*common, "--acceptance", "several"]) == 2
    assert "acceptance must be coupled|token|block|multi-candidate|typical, not 'several'" in capsys.readouterr().err


def test_min_p_dtype_compile_and_the_size_of_batches_go_on(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: dict[str, Any] = {}
    monkeypatch.setattr(Fake, "from_pretrained", lambda folder, **rest: loaded.update(rest) or Fake())
    common = ["generate", "--model", model, "--prompt", "x"]
    assert main(common) == 0
    assert (loaded["dtype"], Fake.asked["compile"], Fake.asked["max_batch_size"]) == (None, False, 16)
    assert main([*common, "--do-sample", "--min-p", "0.1", "--dtype", "bfloat16", "--compile", "--batch-size", "3"]) == 0
    assert (loaded["dtype"], Fake.asked["compile"], Fake.asked["max_batch_size"]) == (torch.bfloat16, True, 3)
    assert Fake.asked["min_p"] == 0.1


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
    monkeypatch.setattr(DraftLengthController, "choose", lambda self, rows, most, *_: most)  # whether that pays here or not
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
