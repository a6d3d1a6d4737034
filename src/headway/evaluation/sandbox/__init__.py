"""Execution of generated code in an isolated child process: no network, no second process, no file of this machine, little time.

docs/sandbox.md lists threats and protections.
"""

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from headway.errors import ConfigError

Isolation = Literal["namespaces", "landlock"]
ISOLATION_LEVELS: tuple[Isolation, ...] = ("namespaces", "landlock")  # the stronger one first
CHILD_PROCESS = Path(__file__).parent / "child_process"
READY = b"ready\n"  # written by the child once it is isolated
MAX_REPORT_BYTES = 4096


@dataclass(frozen=True)
class Limits:
    """Resource limits of a program. Raises ConfigError for a limit that is not positive."""

    seconds: int = 5  # processor time
    wall_seconds: float = 20.0  # wall-clock time, for programs that sleep and for busy machines
    memory: int = 1024  # MiB of address space, interpreter and threads included
    disk: int = 16  # MiB of files, kept in memory

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ConfigError(f"The limit {name} of a program must be above 0, got {value}.")


@dataclass(frozen=True)
class Verdict:
    """Result of a program. The program itself may have written `reason`: untrusted text."""

    passed: bool
    reason: str
    seconds: float


def run_program(
    code: str,
    tests: str,
    overridable_builtins: list[str] | None = None,
    limits: Limits | None = None,
    isolation: Isolation | None = None,
) -> Verdict:
    """Run `code`, then `tests` with the names that `code` defined. The program passes if the tests run to their end.

    A program gets a fresh interpreter without site-packages and without environment variables. The tests see Python's own
    builtins even after the program replaced builtins.

    Args:
        code: the program.
        tests: statements that raise an exception if the program is wrong.
        overridable_builtins: names of builtins that the program may redefine for the tests.
        limits: resource limits; default: `Limits()`.
        isolation: isolation level; default: the strongest level that works on this machine.
    Raises:
        ConfigError: no isolation level works on this machine.
    """
    isolation = isolation or strongest_isolation()
    verdict, isolated = _run_child(code, tests, overridable_builtins or [], limits or Limits(), isolation)
    if not isolated:
        raise ConfigError(f"Generated code was not run: {verdict.reason}.")
    return verdict


@cache
def strongest_isolation() -> Isolation:
    """The strongest isolation level that works on this machine. Raises ConfigError, with the reasons, if none does."""
    reasons = []
    for isolation in ISOLATION_LEVELS:
        if not (reason := isolation_issue(isolation)):
            return isolation
        reasons.append(f"{isolation}: {reason}")
    raise ConfigError(
        f"Generated code is not run here, since nothing on this machine can contain it ({'; '.join(reasons)}). Use Linux 6.2 or "
        "newer, or a system that lets users create namespaces."
    )


@cache
def isolation_issue(isolation: Isolation) -> str | None:
    """The reason why an isolation level does not work on this machine, found by trial; None if the level works."""
    if not sys.platform.startswith("linux"):
        return f"it needs Linux, this is {sys.platform}"
    verdict, isolated = _run_child("import decimal, asyncio", "assert decimal.Decimal(1) == 1", [], Limits(), isolation)
    return None if isolated and verdict.passed else verdict.reason


def _run_child(
    code: str, tests: str, overridable_builtins: list[str], limits: Limits, isolation: Isolation
) -> tuple[Verdict, bool]:
    """Verdict on the program, and True if the child was isolated before the program started."""
    job = {"code": code, "tests": tests, "overridable_builtins": overridable_builtins, "isolation": isolation, **asdict(limits)}
    message = json.dumps(job).encode()
    password = secrets.token_hex(16).encode()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="headway-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        child = subprocess.Popen(
            [sys.executable, "-P", "-s", "-S", str(CHILD_PROCESS)],
            cwd=folder,
            env={"PYTHONHASHSEED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a process group of its own, killed as a whole
        )
        assert child.stdin is not None and child.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError), child.stdin:
                child.stdin.write(len(message).to_bytes(8, "little") + message + password)
            output = _read_output(child.stdout.fileno(), began + limits.wall_seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            exit_code = child.wait()
            while child.stdout.read(2**16):  # wait until every descendant has closed the pipe
                pass
            child.stdout.close()
    seconds = time.monotonic() - began
    isolated = output is None or output.startswith(READY)
    report = (output or b"").removeprefix(READY)
    if output is None or len(output) >= MAX_REPORT_BYTES:
        return Verdict(False, "time limit" if output is None else "wrote where it should not", seconds), isolated
    if isolated and secrets.compare_digest(report, password):
        return Verdict(True, "passed", seconds), True
    return Verdict(False, report.decode(errors="replace") or _exit_reason(exit_code), seconds), isolated


def _read_output(descriptor: int, deadline: float) -> bytes | None:
    """Output of the child until the pipe closes, at most MAX_REPORT_BYTES; None after the deadline."""
    output = b""
    while len(output) < MAX_REPORT_BYTES:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        part = os.read(descriptor, MAX_REPORT_BYTES - len(output))
        if not part:
            break
        output += part
    return output


def _exit_reason(code: int) -> str:
    number = -code if code < 0 else code - 128  # an intermediate process ends as 128 + signal
    if number in (signal.SIGXCPU, signal.SIGKILL):
        return "time limit" if number == signal.SIGXCPU else "killed"
    if number > 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(number).name}"
    return f"left before its tests had run (exit code {code})"
