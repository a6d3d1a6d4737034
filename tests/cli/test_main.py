"""The command as a user meets it: help, exit codes, one line for a mistake."""

import dataclasses
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from headway.cli import main
from headway.cli.commands import COMMANDS, Command
from headway.errors import DataError


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"usage: headway {name}" in shown and "--config FILE.yaml" in shown
    assert COMMANDS[name].about in " ".join(shown.split())


def test_the_overview_lists_every_command_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(sum(line.startswith(f"  headway {name} ") for line in lines) == 1 for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_the_table_names_functions_that_exist(command: Command) -> None:
    for target in (command.config, command.run, *(command.listing or ())[1:]):
        module, name = target.split(":")
        assert callable(getattr(import_module(module), name))


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("heads train", "model data family num-heads output-dir max-steps learning-rate"),
        ("finetune", "model heads family num-heads data objective lora output-dir max-steps learning-rate"),
        ("pretrain", "output-dir max-steps"),
        ("generate", "model prompt max-new-tokens no-speculative json temperature top-k top-p repetition-penalty stop"),
        ("eval", "model task data output-file limit batch-size max-new-tokens no-speculative"),
        ("demo", "output-dir"),
    ],
)
def test_the_flags_of_the_contract_are_there(command: str, flags: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([*command.split(), "--help"])
    words = capsys.readouterr().out.replace(",", " ").split()
    assert [flag for flag in flags.split() if f"--{flag}" not in words] == []


@pytest.mark.parametrize("words", [[], ["--help"], ["heads"], ["heads", "--help"], ["--version"]])
def test_help_and_version_need_no_torch_and_no_time(words: list[str]) -> None:
    code = "import sys; from headway.cli import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert "headway" in done.stdout
    assert time.perf_counter() - started < 5  # 0.06 s on an idle machine; torch alone takes longer than this under load


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["finetun"], "there is no command 'finetun'; did you mean 'finetune'?"),
        (["heads", "trian"], "there is no 'heads trian'; did you mean 'heads train'?"),
        (["qqqqqq"], "there is no command 'qqqqqq'; see headway --help."),
        (["generate", "--promt", "x"], "unknown argument '--promt'; did you mean '--prompt'?"),
        (["generate", "--max-new-tokens", "many"], "max_new_tokens must be integer, not 'many'"),
        (["generate", "--prompt", "x", "--max-new-tokens", "0"], "max_new_tokens must be at least 1"),
        (["generate"], "there is no prompt"),
        (["generate", "--prompts", "nowhere.txt"], "nowhere.txt cannot be read: No such file"),
        (["generate", "--config", "nowhere.yaml"], "nowhere.yaml cannot be read: No such file"),
        (["heads", "inspect"], "folder is required"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("headway: error: ") and shown.err.count("\n") == 1
    assert complaint in shown.err


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_key_in_a_file_is_named_with_the_nearest(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    module, name = COMMANDS[command].config.split(":")
    field = max((item.name for item in dataclasses.fields(getattr(import_module(module), name))), key=len).rstrip("_")
    file.write_text(f"{field}x: 1\n")
    assert main([*command.split(), "--config", str(file)]) == 2
    assert f"run.yaml: unknown key '{field}x'; did you mean '{field}'?" in capsys.readouterr().err


@pytest.mark.slow
def test_a_mistake_in_a_real_process_shows_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "headway.cli", "generate", "--model", "no-such-folder", "--prompt", "x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "headway: error: " in done.stderr and "no-such-folder" in done.stderr and "Traceback" not in done.stderr


def test_a_reader_that_has_seen_enough_gets_no_traceback() -> None:
    command = [sys.executable, "-m", "headway.cli", "heads", "inspect", "embedded"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (141, "")


def raising(error: BaseException, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Make a command without settings of that name, which raises `error`."""

    def run(config: object) -> None:
        raise error

    module = sys.modules[__name__]
    monkeypatch.setattr(module, "run_that_raises", run, raising=False)
    replaced = dataclasses.replace(COMMANDS[name], config=f"{__name__}:NoSettings", run=f"{__name__}:run_that_raises")
    monkeypatch.setitem(COMMANDS, name, replaced)


@dataclasses.dataclass(frozen=True)
class NoSettings:
    """Settings of a command that has none."""


def test_a_message_of_many_lines_becomes_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    raising(DataError("a.jsonl:3\n  is broken"), monkeypatch, "generate")
    assert main(["generate"]) == 2
    assert capsys.readouterr().err == "headway: error: a.jsonl:3 is broken\n"


def test_an_interrupted_training_says_how_to_resume(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    raising(KeyboardInterrupt(), monkeypatch, "finetune")
    assert main(["finetune"]) == 130
    assert "repeat the command to resume" in capsys.readouterr().err


def test_an_interrupted_generation_speaks_of_no_checkpoint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(KeyboardInterrupt(), monkeypatch, "generate")
    assert main(["generate"]) == 130
    assert capsys.readouterr().err == "\nheadway: interrupted.\n"


def test_a_fault_of_headway_itself_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(ZeroDivisionError(), monkeypatch, "generate")
    with pytest.raises(ZeroDivisionError):
        main(["generate"])
