"""Tiny checkpoints with native MTP layers, and training data."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import DeepseekV3ForCausalLM, Glm4MoeForCausalLM

from tests.native_mtp import save_native_mtp
from tests.training.recipes import save_data, save_tokenizer


@pytest.fixture(autouse=True)
def published_depths(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers skips the layers after the last of the published sizes: 61 and 92 or 46 layers; the tests' trunks have 3."""
    for kind in (DeepseekV3ForCausalLM, Glm4MoeForCausalLM):
        monkeypatch.setattr(kind, "_keys_to_ignore_on_load_unexpected", [r"model\.layers\.3\.", r"model\.layers\.4\."])


@pytest.fixture(scope="module")
def native_mtp(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a checkpoint by architecture, saved once."""
    folders: dict[str, Path] = {}

    def folder(architecture: str) -> Path:
        if architecture not in folders:
            folders[architecture] = tmp_path_factory.mktemp(architecture)
            save_native_mtp(folders[architecture], architecture)
            save_tokenizer(folders[architecture])
        return folders[architecture]

    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_data(tmp_path_factory.mktemp("data") / "train.jsonl"))
