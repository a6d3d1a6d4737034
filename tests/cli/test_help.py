"""Help texts of all commands read well to a newcomer."""

import re

import pytest

from headway.cli import main
from headway.cli.commands import COMMANDS


@pytest.fixture(params=COMMANDS)
def shown(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Help of a command on a terminal of 100 columns."""
    monkeypatch.setenv("COLUMNS", "100")
    assert main([*request.param.split(), "--help"]) == 0
    return capsys.readouterr().out


def test_every_setting_has_a_help_text_under_a_heading(shown: str) -> None:
    entries = re.findall(r"^  (-.*)\n(.*)", shown, re.MULTILINE)
    assert all("  " in flag.strip() or following.startswith("      ") for flag, following in entries), shown
    assert "\ngeneral:\n" in shown


def test_defaults_read_as_words(shown: str) -> None:
    text = " ".join(shown.split())
    assert "(none:" not in text and "None" not in text and "default: none" not in text.replace("(default: none)", "")


def test_no_line_is_wider_than_the_terminal(shown: str) -> None:
    assert max(map(len, shown.splitlines())) <= 100


def test_a_long_list_of_settings_is_divided(shown: str) -> None:
    headings = re.findall(r"^(\S.*):$", shown, re.MULTILINE)
    assert len(headings) >= 4 or shown.count("\n  --") <= 20, headings
