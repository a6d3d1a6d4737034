"""The JSON form of results."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from headway.decoding import DecodeStats
from headway.evaluation.results import INLINE, DecodingSummary, as_json


@dataclass(frozen=True)
class Inner:
    loss: float
    ratio: float | None  # null in JSON: no default


@dataclass(frozen=True)
class Outer:
    name: str
    file: Path
    shown: tuple[int, ...]
    scores: dict[int, float] = field(metadata=INLINE)
    inner: Inner = field(metadata=INLINE)
    nested: list[Inner]
    missing: Inner | None = None


def test_inline_fields_lose_their_level_and_absent_fields_are_left_out() -> None:
    value = Outer("x", Path("a/b"), (1, 2), {3: 0.5}, Inner(1.0, None), [Inner(2.0, 3.0)])
    expected = {"name": "x", "file": "a/b", "shown": [1, 2], "3": 0.5, "loss": 1.0, "ratio": None}
    assert as_json(value) == expected | {"nested": [{"loss": 2.0, "ratio": 3.0}]}
    assert json.loads(json.dumps(as_json(value))) == as_json(value)


def test_nothing_generated_has_no_summary() -> None:
    assert DecodingSummary.of(DecodeStats.merge([]), 1.0) is None
