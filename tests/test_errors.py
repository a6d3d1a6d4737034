"""Errors are of Headway and of the standard library at once, and no handler of standard errors rewrites them."""

from pathlib import Path

import pytest

from headway.errors import CheckpointError, ConfigError, DataError, HeadwayError, UnsupportedModelError
from headway.files import replacing_folder


@pytest.mark.parametrize(
    ("error", "standard"),
    [(ConfigError, ValueError), (DataError, ValueError), (CheckpointError, OSError), (UnsupportedModelError, NotImplementedError)],
)
def test_each_error_is_also_the_standard_one(error: type[HeadwayError], standard: type[Exception]) -> None:
    with pytest.raises(standard, match=r"^the message$") as caught:
        raise error("the message")
    assert isinstance(caught.value, HeadwayError)


@pytest.mark.parametrize("error", [CheckpointError, DataError])
def test_an_error_while_a_folder_is_written_is_not_blamed_on_the_disk(error: type[HeadwayError], tmp_path: Path) -> None:
    with pytest.raises(error, match=r"^tensors are missing$"), replacing_folder(tmp_path / "out"):
        raise error("tensors are missing")
    assert list(tmp_path.iterdir()) == []
