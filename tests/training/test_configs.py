"""Settings that contradict each other are refused when they are built."""

from pathlib import Path

import pytest

from headway.errors import ConfigError
from headway.training.configs import DistillConfig

SETTINGS = {"max_new_tokens": 24, "samples": 2, "temperature": 0.8, "top_p": 0.9, "seed": 3, "batch_size": 5, "quiet": True}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"samples": 0}, "samples must be at least 1"),
        ({"temperature": 0, "samples": 2}, "write the same text 2 times"),
        ({"temperature": -1}, "temperature must be at least 0"),
        ({"top_p": 0}, "top_p must be above 0"),
        ({"output_file": Path("own.txt")}, "must end in .jsonl"),
        ({"data": "own.jsonl"}, "the data itself"),
        ({"data": []}, "names nothing"),
    ],
)
def test_settings_that_contradict_are_refused(settings: dict, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        DistillConfig(**{"model": "embedded", "data": "stdlib", "output_file": Path("own.jsonl"), **settings})
