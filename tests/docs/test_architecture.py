"""The page on architecture and the import contract name the same rooms in the same order."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "headway"


@pytest.fixture(scope="module")
def layers() -> list[str]:
    """Rooms of the import contract, from the top floor down."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    return [name.removeprefix("headway.") for name in contracts[0]["layers"]]


def test_the_page_lists_the_rooms_of_the_import_contract_in_order(layers: list[str]) -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    chain = re.search(r"^`?(cli >[^`]+?)`?$", page, re.MULTILINE)
    assert chain is not None, "docs/architecture.md has no line of the form `cli > experiments > ... > errors`"
    assert re.findall(r"\w+", chain[1]) == layers


def test_every_room_is_in_the_import_contract(layers: list[str]) -> None:
    rooms = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").is_file()}
    files = {path.stem for path in SOURCE.glob("*.py")} - {"__init__"}
    assert rooms | files == set(layers)
