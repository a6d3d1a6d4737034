"""Entry point of `headway`: find the command, load the settings, run, print the result, return the exit code."""

import errno
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from headway.cli.commands import COMMANDS, Command
from headway.cli.console import note
from headway.config import load, nearest
from headway.errors import ConfigError, HeadwayError

HELP = ("-h", "--help")


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: words after `headway`, by default from the command line.
    Returns: 0, 2 after a mistake that the user can correct or a full disk, 130 after Ctrl-C, 141 after a broken pipe.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    command = None
    _escape_unencodable_output()
    try:
        if not words or words[0] in (*HELP, "help"):
            print(overview())
        elif words[0] in ("-V", "--version"):
            print(f"headway {import_module('headway').__version__}")
        elif (command := _find_command(words)) is None:
            print(overview(words[0]))
        else:
            run(command, words[len(command.name.split()) :])
        sys.stdout.flush()
    except HeadwayError as error:
        print(f"headway: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        _discard_stdout()
        return 141
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _discard_stdout()
        print(f"headway: error: cannot write the output: {error.strerror}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = "; repeat the command to resume" if command is not None and command.resumable else ""
        print(f"\nheadway: interrupted{hint}.", file=sys.stderr)
        return 130
    except SystemExit as stop:  # argparse exits after --help
        return stop.code if isinstance(stop.code, int) else 0
    return 0


def run(command: Command, words: list[str]) -> None:
    """Load the settings of a command from flags, call the function and print the result. Raises HeadwayError."""
    if command.listing is not None and command.listing[0] in words:
        print(_resolve(command.listing[1])())
        return
    about = f"{command.about}. {command.details}".strip()
    config = load(
        _resolve(command.config), overrides=words, prog=f"headway {command.name}", about=about, positional=command.positional
    )
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else tokenizers warn when a data worker forks
    for name in ("torchao", "torch.utils._pytree"):  # an installed torchao reports every library for a device that is absent
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.showwarning = _short_warnings(warnings.showwarning)
        result = _resolve(command.run)(config)
    if command.result:
        note(command.result.format(result))


def overview(group: str = "") -> str:
    """Help of `headway`, or of a group of commands (`headway heads`)."""
    shown = [command for command in COMMANDS.values() if not group or command.name.split()[0] == group]
    width = max(len(command.name) for command in shown)
    lines = ["Multi-token prediction heads for pretrained language models."]
    for section in dict.fromkeys(command.section for command in shown):
        lines += ["", f"{section}:"] if not group else [""]
        lines += [f"  headway {command.name:<{width}}  {command.about}" for command in shown if command.section == section]
    lines += ["", "`headway COMMAND --help` lists the settings of a command: each is a flag, and a key of a --config FILE.yaml."]
    return "\n".join(lines)


def _find_command(words: list[str]) -> Command | None:
    """Command that `words` begin with, or None for a group without a second word (`heads`).

    Raises: ConfigError for an unknown command, with the nearest name.
    """
    for length in (2, 1):
        if (name := " ".join(words[:length])) in COMMANDS:
            return COMMANDS[name]
    group = [name for name in COMMANDS if name.startswith(words[0] + " ")]
    if group and len(words) > 1 and words[1] not in HELP:
        wrong = " ".join(words[:2])
        raise ConfigError(f"there is no {wrong!r}{nearest(wrong, group) or '; there is: ' + ', '.join(group) + '.'}")
    if group:
        return None
    close = nearest(words[0], [*COMMANDS, *{name.split()[0] for name in COMMANDS}])
    raise ConfigError(f"there is no command {words[0]!r}{close or '; see headway --help.'}")


def _resolve(target: str) -> Any:
    module, name = target.split(":")
    return getattr(import_module(module), name)


def _short_warnings(otherwise: Callable[..., None]) -> Callable[..., None]:
    """Handler that prints Headway's own warnings in a single line, and foreign warnings as usual."""
    package = str(Path(__file__).parents[1])

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any) -> None:
        if filename.startswith(package):
            print(f"headway: note: {message}", file=sys.stderr)
        else:
            otherwise(message, category, filename, lineno, *rest)

    return show


def _escape_unencodable_output() -> None:
    """Make stdout and stderr write characters outside the encoding as escapes (\\u4f60) instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_stdout() -> None:
    """Send the rest of stdout nowhere. Python would report the failure again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
