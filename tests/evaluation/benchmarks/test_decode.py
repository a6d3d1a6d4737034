"""All decoding variants generate the same tokens, and their results follow from the decoding. No test reads the clock."""

import json
import shutil
from pathlib import Path

import pytest

from headway import HeadwayModel, embedded_path
from headway.cli import main
from headway.evaluation.benchmarks import decode
from headway.evaluation.configs import DecodeBenchConfig
from tests.tiny import tiny_trunk


def test_all_variants_generate_the_same_tokens():
    model = HeadwayModel.from_trunk(tiny_trunk(), count=3).eval()
    config = DecodeBenchConfig(max_new_tokens=6, repeats=1)
    for batch, count in ((1, 7), (2, 6)):
        variants = decode._measure(config, model, [[5, 9, 23], [7, 31, 8]], batch)
        assert len(variants) == count and all(variant.identical for variant in variants.values())
        results = decode._results(variants, model, 1e9)
        assert results["plain"].tokens_per_forward == 1 and results["transformers"].ratio == 1
        assert sum(results["heads"].split.values()) == pytest.approx(1)
        assert results["transformers"].split is None


def test_the_command_writes_results_and_a_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "decode.json"
    words = ["--prompts", "2", "--batches", "1", "--max-new-tokens", "3", "--prompt-tokens", "6", "--repeats", "1"]
    assert main(["bench", "decode", *words, "--output-file", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "tokens per forward" in shown and "per-position acceptance rate" in shown
    results = json.loads(file.read_text())["batches"]["1"]
    assert results["heads"]["identical"] and "tokens_per_forward" not in results["transformers"]
    assert (tmp_path / "decode.svg").read_text().startswith("<svg")


@pytest.mark.parametrize("settings", [{"num_beams": 4}, {"stop_strings": ["a"], "repetition_penalty": 1.3}])
def test_benchmarks_run_a_model_with_any_generation_config(tmp_path: Path, settings: dict) -> None:
    folder = tmp_path / "model"
    shutil.copytree(embedded_path(), folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 0, **settings}))
    words = ["--model", str(folder), "--batches", "1", "--max-new-tokens", "2", "--repeats", "1"]
    assert main(["bench", "decode", *words, "--prompts", "1", "--prompt-tokens", "4"]) == 0
    assert main(["bench", "plan", *words, "--heads", "1", "--rates", "0.5", "--context", "4"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bench", "plan", "--shape", "3x4"], "HIDDENxLAYERSxHEADS"),
        (["bench", "plan", "--rates", "1.5"], "rates must be from 0 to 1"),
        (["bench", "decode", "--batches", "0"], "batches must be whole numbers from 1"),
        (["bench", "decode", "--repeats", "0"], "repeats must be at least 1"),
        (["bench", "decode", "--prompts", "1", "--batches", "4"], "fewer than a batch of 4"),
        (["bench", "decod"], "Did you mean 'bench decode'"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys):
    assert main(words) == 2
    assert message.lower() in capsys.readouterr().err.lower()
