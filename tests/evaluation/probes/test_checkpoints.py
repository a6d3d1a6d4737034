"""Models of a run load from its checkpoints as training left them."""

from pathlib import Path

import pytest
import torch

from headway import HeadwayModel
from headway.cli import main
from headway.errors import CheckpointError
from headway.evaluation.probes.checkpoints import run_models, training_examples
from tests.training.recipes import save_data, save_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("tiny"))


@pytest.mark.slow
@pytest.mark.parametrize("how", [[], ["--lora"], ["--objective", "registers"]], ids=["full", "lora", "registers"])
def test_the_last_checkpoint_of_a_run_is_the_model_that_it_saved(tiny: Path, tmp_path: Path, how: list[str]) -> None:
    data, out = save_data(tmp_path / "d.jsonl", 24), tmp_path / "run"
    words = ["finetune", "--model", str(tiny), "--data", str(data), "--limit", "20", "--family", "parallel", "--num-heads", "1"]
    words += ["--max-steps", "3", "--save-steps", "1", "--save-limit", "0", "--batch-size", "2", "--max-length", "64", "--quiet"]
    assert main([*words, "--learning-rate", "1e-2", "--output-dir", str(out), *how]) == 0
    models = run_models(out)
    assert [model.name for model in models] == ["start", "step 1", "step 2", "step 3"]
    assert len(training_examples(out)) == 20
    last, saved = models[-1].load(), HeadwayModel.from_pretrained(out)
    ids = torch.tensor([[5, 6, 7, 8]])
    assert torch.allclose(last.trunk(input_ids=ids).logits, saved.trunk(input_ids=ids).logits, atol=1e-5)
    assert not torch.allclose(models[1].load().trunk(input_ids=ids).logits, saved.trunk(input_ids=ids).logits, atol=1e-3)
    assert {n for n, _ in last.named_parameters()} == {n for n, _ in saved.named_parameters()}
    if how != ["--lora"]:
        for (name, ours), (_, theirs) in zip(sorted(last.named_parameters()), sorted(saved.named_parameters()), strict=True):
            assert torch.equal(ours, theirs), name


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no folder of a run"):
        run_models(tmp_path)
    (tmp_path / "config.headway.yaml").write_text("tokenizer: x\n")
    with pytest.raises(CheckpointError, match="is not of `headway finetune`"):
        run_models(tmp_path)
