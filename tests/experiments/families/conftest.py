"""A trunk so small that training it takes no time, with a real tokenizer."""

from pathlib import Path

import pytest
from tests.tiny import tiny_trunk
from transformers import AutoTokenizer

from headway import embedded_path


@pytest.fixture(scope="session")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trunk")
    tokenizer = AutoTokenizer.from_pretrained(embedded_path())
    tiny_trunk(vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
