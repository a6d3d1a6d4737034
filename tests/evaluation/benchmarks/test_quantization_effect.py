"""The effect of quantisation: loss, bytes and speed before and after."""

import json
from pathlib import Path

import pytest

from headway.cli import main

pytest.importorskip("torchao", reason="torchao is not installed: pip install 'headway[quantize]'")


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "dtype", "share"), [("int8-dynamic", "saved", 0.6), ("int4", "bfloat16", 0.4)])
def test_eval_reports_loss_bytes_and_speed_before_and_after(scheme: str, dtype: str, share: float, tmp_path: Path) -> None:
    out, text = tmp_path / "results.json", tmp_path / "text.jsonl"
    text.write_text(json.dumps({"text": "def add(a, b):\n    return a + b\n" * 8}) + "\n")
    arguments = ["eval", "--model", "embedded", "--task", "held-out", "--data", str(text), "--speed-prompts", "1"]
    assert main([*arguments, "--max-new-tokens", "4", "--dtype", dtype, "--quantize", scheme, "--output-file", str(out)]) == 0
    results = json.loads(out.read_text())
    quantized = results["quantized"]
    assert quantized["scheme"] == scheme and quantized["bytes_after"] < share * quantized["bytes_before"]
    assert quantized["loss_after"] == results["losses"][0] != quantized["loss_before"]
    assert abs(quantized["loss_after"] / quantized["loss_before"] - 1) < 0.02
    assert quantized["plain_speed_ratio"] > 0 and results["speed"]["identical"]
