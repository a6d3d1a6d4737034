"""Isolation of this process, then an untrusted program, then the tests of the program. Started by `headway.evaluation.sandbox`.

Standard input: the job as JSON, then the password. Standard output: "ready" once the process is isolated, then the password if
the tests passed, otherwise the error. Only the standard library is imported: the interpreter sees no installed packages.
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

PASSWORD_LENGTH = 32  # characters
MEGABYTE = 2**20


def main() -> None:
    namespaces.die_with_parent()
    job = json.loads(_read_job(0))
    # the password stays in the pipe until the tests have run: no object of this process holds the password earlier
    secret, report = (fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 100) for descriptor in (0, 1))
    dev_null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(dev_null, descriptor)
    try:
        if job["isolation"] == "namespaces":
            namespaces.enter(_readable(), os.getcwd(), job["disk"])
        else:
            landlock.restrict(_readable())
            namespaces.drop_capabilities()
        _set_limits(job)
        seccomp.install()
    except OSError as error:
        os.write(report, str(error).encode())
        os._exit(1)
    os.write(report, b"ready\n")
    _run(job.pop("code"), job.pop("tests"), job.pop("overridable_builtins"), secret, report)


def _run(code: str, tests: str, overridable_builtins: list[str], secret: int, report: int) -> None:
    # references and a copy from before the program can replace them
    read, write, leave, clean_builtins = os.read, os.write, os._exit, dict(vars(builtins))
    module = types.ModuleType("program")
    sys.modules["program"] = module
    protected: set[str] = set(dir(builtins)) - set(overridable_builtins)
    try:
        compiled_tests = compile(tests, "tests.py", "exec", dont_inherit=True)
        exec(compile(code, "program.py", "exec", dont_inherit=True), vars(module))
        for reset in (sys.settrace, sys.setprofile, threading.settrace, threading.setprofile):
            reset(None)  # type: ignore[arg-type]
        signal.setitimer(signal.ITIMER_REAL, 0)
        defined = {name: value for name, value in vars(module).items() if name not in protected}
        exec(compiled_tests, defined | {"__builtins__": clean_builtins})
    except BaseException as error:
        lines = traceback.format_exception_only(type(error), error)
        write(report, " ".join(" ".join(lines).split())[:500].encode(errors="replace"))
        leave(1)
    write(report, read(secret, PASSWORD_LENGTH))
    leave(0)


def _set_limits(job: dict) -> None:
    limits = {
        resource.RLIMIT_CPU: job["seconds"],
        resource.RLIMIT_AS: job["memory"] * MEGABYTE,
        resource.RLIMIT_FSIZE: job["disk"] * MEGABYTE,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    if job["isolation"] == "namespaces":  # with landlock, the user's other processes would count
        limits[resource.RLIMIT_NPROC] = 64
    for kind, soft in limits.items():
        hard = resource.getrlimit(kind)[1]
        ceiling = soft + (kind == resource.RLIMIT_CPU)  # SIGXCPU at the soft limit, SIGKILL one second later
        ceiling = ceiling if hard == resource.RLIM_INFINITY else min(ceiling, hard)
        resource.setrlimit(kind, (min(soft, ceiling), ceiling))


def _readable() -> list[str]:
    """Folders that Python needs: the standard library and shared libraries."""
    own_folder = os.path.dirname(os.path.abspath(__file__))
    candidates = ["/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo", f"{sys.base_prefix}/lib"]
    candidates += [path for path in sys.path if path != own_folder] + [os.path.dirname(os.__file__)]
    folders: list[str] = []
    for path in candidates:
        if os.path.isdir(path) and not any(f"{path}/".startswith(f"{folder}/") for folder in folders):
            folders.append(path)
    return folders


def _read_job(descriptor: int) -> bytes:
    """The job alone. The password behind the job stays unread in the pipe."""
    size = int.from_bytes(os.read(descriptor, 8), "little")
    parts = []
    while size:
        parts.append(os.read(descriptor, size))
        size -= len(parts[-1])
    return b"".join(parts)


main()
