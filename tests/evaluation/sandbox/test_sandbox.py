"""Hostile programs do no harm, at either isolation level."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from headway.evaluation import sandbox
from headway.evaluation.sandbox import ISOLATION_LEVELS, Limits, isolation_issue, run_program
from tests.evaluation.sandbox.hostile_programs import FAILING, NOTE, REFUSED, TESTS

SECRET = "the secret of the machine"
SMALL = Limits(seconds=1, wall_seconds=2.5, memory=256)
PATIENT = Limits(seconds=20, wall_seconds=30)


@pytest.fixture(params=ISOLATION_LEVELS)
def isolation(request):
    return available(request.param)


def available(isolation):
    if reason := isolation_issue(isolation):
        pytest.skip(f"this machine has no {isolation}: {reason}")
    return isolation


@pytest.fixture
def world():
    """A file that anybody may read and write, a listening port, and a process: the targets of the hostile programs."""
    folder = Path(tempfile.mkdtemp())
    file = folder / "file"
    file.write_text(SECRET)
    folder.chmod(0o777)
    file.chmod(0o666)
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with socket.create_server(("127.0.0.1", 0)) as server:
        heard = []
        threading.Thread(target=lambda: heard.append(server.accept()), daemon=True).start()
        yield file, server.getsockname()[1], victim, heard
        victim.kill()
        victim.wait()
        shutil.rmtree(folder, ignore_errors=True)


def filled(code, file, port, victim):
    names = {"FILE": str(file), "PORT": str(port), "VICTIM": str(victim.pid), "PARENT": str(os.getpid())}
    return NOTE + re.sub("FILE|PORT|VICTIM|PARENT", lambda found: names[found[0]], code)


def unharmed(file, victim, heard):
    now = file.stat() if file.exists() else None
    return (
        now is not None
        and file.read_text() == SECRET
        and now.st_mode & 0o777 == 0o666
        and now.st_mtime > 0
        and os.listdir(file.parent) == ["file"]
        and victim.poll() is None
        and os.getpriority(os.PRIO_PROCESS, victim.pid) == os.getpriority(os.PRIO_PROCESS, 0)
        and not heard
    )


@pytest.fixture(scope="module", autouse=True)
def child_folder(tmp_path_factory):
    """A copy of the child's code under a unique path, so that its processes are told apart from other runs."""
    folder = tmp_path_factory.mktemp("sandbox") / "child_process"
    shutil.copytree(sandbox.CHILD_PROCESS, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox, "CHILD_PROCESS", folder)
        yield folder


def sandboxed_processes():
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(sandbox.CHILD_PROCESS).encode() in (entry / "cmdline").read_bytes():
                found.append(entry.name)
        except OSError:
            continue  # it has ended
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_program_does_no_harm(name, isolation, world):
    file, port, victim, heard = world
    verdict = run_program(filled(REFUSED[name], file, port, victim), "assert not harm, harm", limits=PATIENT, isolation=isolation)
    assert verdict.passed, verdict.reason
    time.sleep(0.6 if "daemon" in name else 0)
    assert unharmed(file, victim, heard)
    assert not sandboxed_processes()


@pytest.mark.parametrize(
    "name",
    [
        "subprocess",
        "a daemon that outlives its parent",
        "network",
        "deleting a file",
        "changing a file's rights",
        "reading a secret",
        "links to a secret",
        "throttling",
    ],
)
def test_the_same_programs_do_harm_without_isolation(name, world, tmp_path):
    file, port, victim, heard = world
    code = filled(REFUSED[name], file, port, victim) + "\nassert not harm, harm"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False)
    assert "AssertionError" in done.stderr
    time.sleep(0.6 if "daemon" in name else 0)
    if name in ("a daemon that outlives its parent", "network", "deleting a file", "changing a file's rights"):
        assert not unharmed(file, victim, heard)


# limits do not depend on the isolation level: a few are enough for the second
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "isolation"),
    [
        *((name, ISOLATION_LEVELS[0]) for name in FAILING),
        *((name, ISOLATION_LEVELS[1]) for name in ("endless loop", "memory", "claiming success")),
    ],
)
def test_a_wrong_program_fails_and_ends(name, isolation):
    available(isolation)
    code, reason = FAILING[name]
    began = time.monotonic()
    verdict = run_program(code, TESTS, limits=SMALL, isolation=isolation)
    assert not verdict.passed
    assert re.search(reason, verdict.reason), verdict.reason
    assert time.monotonic() - began < 20
    assert not sandboxed_processes()


def test_a_right_program_passes_the_same_tests(isolation):
    assert run_program("def answer(): return -42", TESTS, limits=SMALL, isolation=isolation).passed


def test_programs_may_use_threads_files_alarms_and_asyncio(isolation):
    code = (
        "import asyncio, concurrent.futures, signal, tempfile\nrang = False\ndef ring(*_):\n    global rang\n    rang = True\n"
        "with concurrent.futures.ThreadPoolExecutor(4) as pool: total = sum(pool.map(abs, range(5)))\n"
        "async def two(): return 2\nnumber = asyncio.run(two())\n"
        "signal.signal(signal.SIGALRM, ring)\nsignal.setitimer(signal.ITIMER_REAL, 0.05)\nwhile not rang: pass\n"
        "def keep(text):\n    with tempfile.TemporaryFile('w+') as file:\n        file.write(text)\n        file.seek(0)\n"
        "        return file.read()\n"
    )
    tests = "assert (total, number, rang) == (10, 2, True)"
    tests += "\nassert keep('x') == 'x'" if isolation == "namespaces" else ""  # landlock allows no files at all
    verdict = run_program(code, tests, limits=PATIENT, isolation=isolation)
    assert verdict.passed, verdict.reason


def test_a_killed_run_leaves_no_program_behind(isolation):
    code = "from headway.evaluation import sandbox\nprint(flush=True)\n"
    code += f"sandbox.CHILD_PROCESS = {str(sandbox.CHILD_PROCESS)!r}\n"
    code += f"sandbox.run_program('import time\\nwhile True: time.sleep(1)', '', isolation={isolation!r})"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    parent.stdout.readline()
    until = time.monotonic() + 10
    while not sandboxed_processes() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)  # until the child is isolated
    assert sandboxed_processes()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while sandboxed_processes() and time.monotonic() < until:
        time.sleep(0.05)
    assert not sandboxed_processes()
