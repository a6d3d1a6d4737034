"""Output and input of commands never fail for their encoding, and a full disk is one line."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headway.cli import main
from headway.cli.console import read_stdin
from headway.errors import DataError

TEXT = "Привет 你好 é 😀"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, bytes], io.BytesIO]:
    """Replace the standard streams by streams of an encoding; returns the bytes of stdout and stderr together."""

    def replace(encoding: str, content: bytes = b"") -> io.BytesIO:
        output = io.BytesIO()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding=encoding))
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, io.TextIOWrapper(output, encoding=encoding, write_through=True))
        return output

    return replace


GENERATE = ["generate", "--max-new-tokens", "4", "--prompt"]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_text_that_stdout_cannot_encode_is_written_as_escapes(encoding: str, terminal: Callable) -> None:
    output = terminal(encoding)
    assert main([*GENERATE, TEXT, "b"]) == 0
    assert TEXT.encode(encoding, errors="backslashreplace") in output.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_json_stays_json_in_any_encoding(encoding: str, terminal: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    output = terminal(encoding)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert main([*GENERATE, TEXT, "--json"]) == 0
    assert json.loads(output.getvalue().decode(encoding))["completions"][0]["prompt"] == TEXT


def test_a_table_and_an_error_are_written_in_any_encoding(terminal: Callable, tmp_path: Path) -> None:
    output = terminal("ascii")
    assert main(["heads", "inspect", "embedded"]) == 0
    assert b"| family" in output.getvalue()
    output = terminal("ascii")
    assert main([*GENERATE, "a", "--model", str(tmp_path / "你好")]) == 2
    assert b"\\u4f60\\u597d" in output.getvalue() and output.getvalue().count(b"\n") == 1


@pytest.mark.parametrize(("encoding", "written"), [("ascii", "utf-8"), ("cp1252", "utf-8"), ("cp1252", "cp1252")])
def test_a_prompt_on_standard_input_is_utf_8_or_of_the_terminal(encoding: str, written: str, terminal: Callable) -> None:
    terminal(encoding, "café\n".encode(written))
    assert read_stdin() == "café\n"


def test_bytes_on_standard_input_that_are_no_text_are_refused(terminal: Callable) -> None:
    terminal("ascii", b"caf\xe9")
    with pytest.raises(DataError, match="standard input is neither UTF-8 nor ascii text"):
        read_stdin()


def test_a_prompt_of_bytes_that_are_no_text_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*GENERATE, os.fsdecode(b"caf\xe9")]) == 2
    assert "holds bytes that are not text" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
@pytest.mark.parametrize(
    "words", [["--help"], ["heads", "inspect", "embedded"], ["generate", "--prompt", "a", "--max-new-tokens", "4"]]
)
def test_a_full_disk_behind_stdout_is_one_line(words: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "headway.cli", *words]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (2, b"headway: error: cannot write the output: No space left on device.\n")
