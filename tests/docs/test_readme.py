"""The README stays on one screen."""

import re
from pathlib import Path

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_readme_has_at_most_700_words() -> None:
    assert len(README.split()) <= 700


def test_the_readme_has_at_most_40_numbers() -> None:
    assert len(re.findall(r"(?<![\w.])\d[\d.,]*", README)) <= 40
