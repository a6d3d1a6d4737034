"""One untrusted program, in this process: walls first, then the program, then its tests. Run by `headway.evaluation.sandbox`.

The job comes on standard input, what became of it goes to standard output: "ready" once all walls stand, then the password, or what
went wrong. Standard library only, and nothing of Headway's: the interpreter that runs this sees no installed packages.
"""

import builtins
import fcntl
import json
import os
import resource
import signal
import sys
import threading
import traceback
import types

import landlock
import namespaces
import seccomp

PASSWORD = 32  # characters
MEGABYTE = 2**20


def main() -> None:
    namespaces.die_with_parent()
    job = json.loads(_job(0))
    # the password stays in the pipe until the tests have run: no object of this process holds it before
    secret, report = (fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 100) for descriptor in (0, 1))
    nowhere = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    try:
        if job["wall"] == "namespaces":
            namespaces.enter(_readable(), os.getcwd(), job["disk"])
        else:
            landlock.set_draft_vocab(_readable())
            namespaces.drop_capabilities()
        _limit(job)
        seccomp.install()
    except OSError as error:
        os.write(report, str(error).encode())
        os._exit(1)
    os.write(report, b"ready\n")
    _run(job.pop("code"), job.pop("tests"), job.pop("own"), secret, report)


def _run(code: str, tests: str, own: list[str], secret: int, report: int) -> None:
    read, write, leave, spotless = os.read, os.write, os._exit, dict(vars(builtins))
    module = types.ModuleType("program")
    sys.modules["program"] = module
    before: set[str] = set(dir(builtins)) - set(own)
    try:
        judge = compile(tests, "tests.py", "exec", dont_inherit=True)
        exec(compile(code, "program.py", "exec", dont_inherit=True), vars(module))
        for forget in (sys.settrace, sys.setprofile, threading.settrace, threading.setprofile):
            forget(None)  # type: ignore[arg-type]
        signal.setitimer(signal.ITIMER_REAL, 0)
        known = {name: value for name, value in vars(module).items() if name not in before}
        exec(judge, known | {"__builtins__": spotless})
    except BaseException as error:
        lines = traceback.format_exception_only(type(error), error)
        write(report, " ".join(" ".join(lines).split())[:500].encode(errors="replace"))
        leave(1)
    write(report, read(secret, PASSWORD))
    leave(0)


def _limit(job: dict) -> None:
    limits = {
        resource.RLIMIT_CPU: job["seconds"],
        resource.RLIMIT_AS: job["memory"] * MEGABYTE,
        resource.RLIMIT_FSIZE: job["disk"] * MEGABYTE,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    if job["wall"] == "namespaces":  # where the user has other processes, those would count
        limits[resource.RLIMIT_NPROC] = 64
    for what, most in limits.items():
        hard = resource.getrlimit(what)[1]
        ceiling = most + (what == resource.RLIMIT_CPU)  # at the first a signal that says why, a second later the end
        ceiling = ceiling if hard == resource.RLIM_INFINITY else min(ceiling, hard)
        resource.setrlimit(what, (min(most, ceiling), ceiling))


def _readable() -> list[str]:
    """What Python needs: the standard library and the libraries it loads."""
    own = os.path.dirname(os.path.abspath(__file__))
    wanted = ["/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo", f"{sys.base_prefix}/lib"]
    wanted += [path for path in sys.path if path != own] + [os.path.dirname(os.__file__)]
    found: list[str] = []
    for path in wanted:
        if os.path.isdir(path) and not any(f"{path}/".startswith(f"{inside}/") for inside in found):
            found.append(path)
    return found


def _job(descriptor: int) -> bytes:
    """What stands before the password, and not a byte more."""
    size = int.from_bytes(os.read(descriptor, 8), "little")
    parts = []
    while size:
        parts.append(os.read(descriptor, size))
        size -= len(parts[-1])
    return b"".join(parts)


main()
