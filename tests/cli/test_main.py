"""The command as a user meets it: help, exit codes, one line for a mistake."""

import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from headway.cli import VERBS, main
from headway.errors import DataError


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_explains_itself_and_takes_config_and_seed(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*verb.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"usage: headway {verb}" in shown
    assert "--config FILE.yaml" in shown and "--seed" in shown


@pytest.mark.parametrize(
    ("verb", "flags"),
    [
        ("heads train", "model data family num-heads output-dir max-steps learning-rate"),
        ("finetune", "model heads family num-heads data objective lora output-dir max-steps learning-rate"),
        ("pretrain", "output-dir max-steps"),
        ("generate", "model prompt max-new-tokens no-speculative json temperature top-k top-p repetition-penalty stop"),
        ("eval", "model task data output-file limit batch-size max-new-tokens no-speculative"),
        ("demo", "output-dir"),
    ],
)
def test_the_flags_of_the_contract_are_there(verb: str, flags: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([*verb.split(), "--help"])
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
        (["finetun"], "there is no verb 'finetun'; did you mean 'finetune'?"),
        (["heads", "trian"], "there is no 'heads trian'; did you mean 'heads train'?"),
        (["qqqqqq"], "there is no verb 'qqqqqq'; see headway --help."),
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


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_key_in_a_file_is_named_with_the_nearest(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("sede: 1\n")
    assert main([*verb.split(), "--config", str(file)]) == 2
    assert "run.yaml: unknown key 'sede'; did you mean 'seed'?" in capsys.readouterr().err


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


def raising(error: BaseException, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    def run(arguments: list[str]) -> None:
        raise error

    monkeypatch.setattr(import_module(f"headway.cli.{VERBS[verb][0]}"), "run", run)


def test_a_message_of_many_lines_becomes_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    raising(DataError("a.jsonl:3\n  is broken"), monkeypatch, "generate")
    assert main(["generate"]) == 2
    assert capsys.readouterr().err == "headway: error: a.jsonl:3 is broken\n"


def test_an_interrupted_training_says_how_to_resume(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    raising(KeyboardInterrupt(), monkeypatch, "finetune")
    assert main(["finetune"]) == 130
    assert "repeat the command to go on where it stopped" in capsys.readouterr().err


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
