"""`headway heads inspect` reads headers and says what is missing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from headway.cli import main
from headway.files import write_json
from tests.native_mtp import save_native_mtp, tensors_of
from tests.tiny import tiny_trunk


@pytest.fixture
def heads(tmp_path: Path) -> Path:
    record = {"version": 1, "family": "parallel", "count": 2, "architecture": "llama", "hidden_size": 8, "layers": 3}
    write_json(tmp_path / "headway.json", record | {"options": {"layer": "linear"}, "training": {"steps": 7}})
    tensors = {"heads.1.w": torch.zeros(8, 8, dtype=torch.bfloat16), "heads.0.w": torch.zeros(4)}
    save_file(tensors, tmp_path / "headway.safetensors")
    return tmp_path


def test_json_lists_record_tensors_and_parameters(heads: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["heads", "inspect", str(heads), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["family"], found["count"], found["architecture"], found["hidden_size"]) == ("parallel", 2, "llama", 8)
    assert found["parameters"] == 68 and found["dtype"] == "BF16 F32" and found["training"] == {"steps": 7}
    assert found["tensors"][0] == {"name": "heads.0.w", "shape": [4], "dtype": "F32"}


def test_the_table_names_what_the_heads_are(heads: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["heads", "inspect", "--folder", str(heads)]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("parallel", "llama", "heads.1.w", "[8, 8]", "BF16", "training.steps", "68"))


@pytest.mark.parametrize("name", ["headway.json", "headway.safetensors"])
def test_a_missing_file_is_named(heads: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (heads / name).unlink()
    assert main(["heads", "inspect", str(heads)]) == 2
    assert f"{name} is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content"), [("headway.json", "{"), ("headway.json", "[1]"), ("headway.safetensors", "not tensors")]
)
def test_a_damaged_file_is_named(heads: Path, name: str, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (heads / name).write_text(content)
    assert main(["heads", "inspect", str(heads)]) == 2
    assert name in capsys.readouterr().err


def test_the_embedded_model_can_be_inspected_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["heads", "inspect", "embedded"]) == 0
    assert "parallel" in capsys.readouterr().out


def test_layers_that_a_model_ships_with_are_named_with_their_layout_and_engines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_native_mtp(tmp_path, "glm4_moe")
    assert main(["heads", "inspect", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["family"], found["count"]) == ("transformers", "sequential", 1)
    assert found["layout"].startswith("deepseek") and "use_mtp" in found["engines"]
    names = {tensor["name"] for tensor in found["tensors"]}
    assert names == {name for name in tensors_of(tmp_path) if name.startswith("model.layers.3.")}
    assert main(["heads", "inspect", str(tmp_path)]) == 0
    assert "vLLM" in capsys.readouterr().out


def test_a_plain_model_is_called_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_trunk().save_pretrained(tmp_path)
    assert main(["heads", "inspect", str(tmp_path)]) == 0
    assert "a plain model without heads" in " ".join(capsys.readouterr().out.split())


def test_what_to_look_out_for_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"blocks.0.layers.0.bias": torch.zeros(4), "lm_heads.0.weight": torch.zeros(9, 4)}, tmp_path / "model.safetensors")
    assert main(["heads", "inspect", str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Medusa, vLLM's naming" in shown and "note" in shown and "medusa_fc_bias" in shown


def test_nothing_and_pickles_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["heads", "inspect", str(tmp_path / "nowhere")]) == 2
    assert main(["heads", "inspect", str(tmp_path)]) == 2
    assert "holds no heads" in capsys.readouterr().err
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert main(["heads", "inspect", str(tmp_path)]) == 2
    assert "weights_only=True" in capsys.readouterr().err


@pytest.mark.slow
def test_naming_a_layout_does_not_import_torch(tmp_path: Path) -> None:
    save_file(
        {"fc.weight": torch.zeros(2, 4), "layers.0.self_attn.q_proj.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors"
    )
    code = (
        f"import sys; from headway.cli import main; main(['heads', 'inspect', {str(tmp_path)!r}]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
