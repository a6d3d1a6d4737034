"""What all tests share: one thread, no network, and the real models and data that lie beside the repository."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models and data sets; where it is absent, as in a plain clone, its tests are skipped."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "models").is_dir():
        pytest.skip(f"no real models and data here ({folder} is absent)")
    return folder


@pytest.fixture(autouse=True)
def seed() -> None:
    """What a test draws does not depend on which tests ran before, and how far."""
    torch.manual_seed(0)
