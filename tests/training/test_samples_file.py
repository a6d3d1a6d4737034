"""A file of samples appears complete and in order, whatever interrupts its writing."""

from pathlib import Path

import pytest

from headway.errors import ConfigError
from headway.training.samples_file import Samples

SETTINGS = {"temperature": 0.5, "samples": 1}


def sample(number: int) -> dict:
    return {"number": number, "sample": 0, "tokens": number + 1, "finish_reason": "length" if number == 2 else "stop"}


def test_samples_of_any_order_are_written_in_the_order_of_the_prompts(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    samples = Samples(path, SETTINGS)
    for number in (2, 0, 1):
        samples.add(sample(number))
    assert not path.exists() and (len(samples), samples.tokens, samples.cut_off) == (3, 6, 1)
    samples.finish()
    assert [line[:12] for line in path.read_text().splitlines()] == [f'{{"number": {n}' for n in range(3)]
    assert not path.with_name("own.jsonl.unfinished").exists()
    again = Samples(path, SETTINGS)
    assert again.complete and (1, 0) in again and (3, 0) not in again


@pytest.mark.parametrize("rest", [b"", b'{"number": 7, "sam', b"\xff\xfe"])
def test_a_half_written_line_is_dropped_and_drawn_again(tmp_path: Path, rest: bytes) -> None:
    path = tmp_path / "own.jsonl"
    samples = Samples(path, SETTINGS)
    samples.add(sample(0))
    samples.close()
    with samples.partial_file.open("ab") as file:
        file.write(rest)
    resumed = Samples(path, SETTINGS)
    assert len(resumed) == 1 and (7, 0) not in resumed
    resumed.add(sample(1))
    resumed.finish()
    assert len(path.read_text().splitlines()) == 2


def test_samples_of_other_settings_are_refused_or_deleted(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    samples = Samples(path, SETTINGS)
    samples.add(sample(0))
    samples.finish()
    with pytest.raises(ConfigError, match=r"temperature: 0\.5, not 0\.7"):
        Samples(path, {**SETTINGS, "temperature": 0.7})
    assert len(Samples(path, {**SETTINGS, "temperature": 0.7}, resume=False)) == 0 and not path.exists()
