from pathlib import Path

import pytest

from tests.training.recipes import save_data, save_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("model"), attention_dropout=0.0))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_data(tmp_path_factory.mktemp("data") / "train.jsonl"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"
