"""Hostile programs. Each appends its successes to `harm`. Forks and file sizes are bounded in case the isolation fails.

FILE: a file that anyone may read and write. PORT: a listening port. VICTIM: a process of the same user.
"""

NOTE = """
harm = []
def attempt(what, *arguments, **named):
    try:
        harm.append(str(what(*arguments, **named)) or "done")
    except (OSError, RuntimeError, ImportError, MemoryError, ValueError) as error:
        return error
"""

# programs whose attempts must be refused: they pass their own test, that no harm was done
REFUSED = {
    "fork bomb": """
import os
def bomb():
    for _ in range(8):
        os.fork()
    return "forked"
attempt(bomb)
""",
    "subprocess": """
import subprocess
attempt(subprocess.check_output, ["/bin/echo", "hello"])
""",
    "shell": """
import os
attempt(lambda: os.execv("/bin/sh", ["sh", "-c", "echo hello > FILE"]))
""",
    "a daemon that outlives its parent": """
import os, time
def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(0.5)
            open("FILE", "w").write("still here")
        os._exit(0)
    return "daemon"
attempt(daemon)
""",
    "network": """
import socket
attempt(socket.create_connection, ("127.0.0.1", PORT), 2)
attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", PORT)))
""",
    "name server": """
import socket
attempt(socket.getaddrinfo, "localhost", 80)
attempt(socket.getaddrinfo, "example.org", 80)
""",
    "sockets of the machine": """
import socket
attempt(lambda: socket.socket(socket.AF_UNIX).connect("\\0headway"))
attempt(lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b"x", "/dev/log"))
""",
    "deleting a file": """
import os, shutil
attempt(os.remove, "FILE")
attempt(os.rename, "FILE", "FILE.old")
attempt(os.truncate, "FILE", 0)
attempt(os.open, "FILE", os.O_RDONLY | os.O_TRUNC)
attempt(shutil.rmtree, os.path.dirname("FILE"))
""",
    "writing where the user lives": """
import os
attempt(open, "FILE", "w")
attempt(open, os.path.dirname("FILE") + "/new", "w")
attempt(open, os.path.expanduser("~/.bashrc"), "a")
""",
    "changing a file's rights": """
import os
attempt(os.chmod, "FILE", 0)
attempt(os.utime, "FILE", (0, 0))
attempt(os.setxattr, "FILE", "user.x", b"y")
""",
    "reading a secret": """
import os
attempt(lambda: open("FILE").read())
attempt(os.listdir, os.path.dirname("FILE"))
attempt(lambda: open("/etc/passwd").read())
""",
    "links to a secret": """
import os
ways = iter("abcdefgh")
def through(link, path):
    link(path, way := next(ways))
    return open(way).read()
attempt(through, os.symlink, "FILE")
attempt(through, os.symlink, "/proc/1/root/etc/passwd")
attempt(through, os.link, "FILE")
""",
    "environment of the parent": """
import os
for process in (os.getppid(), "self", PARENT, 1):
    attempt(lambda: open(f"/proc/{process}/environ").read())
if [name for name in os.environ if name not in ("PYTHONHASHSEED", "LC_CTYPE")]:
    harm.append(str(os.environ))
""",
    "killing": """
import os, signal
for process in (VICTIM, PARENT, os.getppid(), 1):
    attempt(lambda: os.kill(process, signal.SIGTERM) or "sent")
attempt(lambda: os.killpg(PARENT, signal.SIGTERM) or "sent")
attempt(lambda: signal.pidfd_send_signal(os.pidfd_open(VICTIM), signal.SIGTERM) or "sent")
""",
    "throttling": """
import os, resource
attempt(lambda: resource.prlimit(VICTIM, resource.RLIMIT_CPU, (1, 1)))
attempt(lambda: os.setpriority(os.PRIO_PROCESS, VICTIM, 19) or "slowed")
attempt(lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)) or "no limit")
""",
    "ptrace": """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
    return name
for process in (VICTIM, PARENT, os.getppid()):
    attempt(call, "ptrace", 16, process, 0, 0)
buffer = ctypes.create_string_buffer(64)
attempt(call, "process_vm_readv", VICTIM, buffer, 1, buffer, 1, 0)
""",
    "the kernel": """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
    return name
attempt(call, "unshare", 0x10000000)
attempt(call, "mount", b"none", b"/tmp", b"tmpfs", 0, None)
attempt(call, "chroot", b"/")
attempt(call, "prctl", 1, 0, 0, 0, 0)
attempt(call, "syscall", 425, 8, ctypes.create_string_buffer(120))
attempt(call, "syscall", 321, 0, 0, 0)
attempt(call, "memfd_create", b"x", 0)
""",
    "filling the disk": """
import os
written = 0
def fill():
    global written
    for number in range(300):
        with open(f"big{number}", "wb") as file:
            for _ in range(4):
                written += file.write(bytes(2**20))
attempt(fill)
if written > 20 * 2**20:
    harm.append(f"wrote {written} bytes")
""",
    "threads": """
import threading, time
started = 0
def many():
    global started
    for _ in range(2000):
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
        started += 1
many_error = attempt(many)
if started > 500:
    harm.append(f"started {started}")
""",
    "open files": """
import os
attempt(lambda: [os.open("/usr/lib", os.O_RDONLY) for _ in range(1000)] and "opened")
""",
}

# programs that must fail, and the reason reported
FAILING = {
    "endless loop": ("while True: pass", "time limit"),
    "endless sleep": ("import time\nwhile True: time.sleep(60)", "time limit"),
    "signals ignored": (
        "import signal\nfor number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:\n"
        "    signal.signal(number, signal.SIG_IGN)\nwhile True: pass",
        "killed|time limit",
    ),
    "everything caught": ("while True:\n    try:\n        while True: pass\n    except BaseException: pass", "time limit"),
    "memory": ("blocks = []\nwhile True: blocks.append(bytearray(2**20))", "MemoryError|killed"),
    "one large number": ("value = 10 ** 10 ** 10", "time limit|MemoryError"),
    "recursion": ("def f(n): return f(n + 1)\nf(0)", "RecursionError"),
    "deep recursion": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(n): return f(n + 1)\nf(0)",
        "MemoryError|killed|time limit",
    ),
    "flood of output": ("import sys\nwhile True: print('x' * 10**6); sys.stderr.write('y' * 10**6)", "time limit"),
    "flood of every descriptor": (
        "import os\nfor fd in range(256):\n    try:\n        for _ in range(64): os.write(fd, b'x' * 65536)\n"
        "    except OSError: pass",
        "wrote where it should not|left|^x",
    ),
    "leaving early": ("import os\nos._exit(0)", "left before its tests had run"),
    "leaving politely": ("import sys\nsys.exit(0)", "SystemExit"),
    "leaving in the tests": ("def answer():\n    import os\n    os._exit(0)", "left before its tests had run"),
    "leaving through a signal": ("import signal\nsignal.raise_signal(signal.SIGTERM)\nanswer = lambda: 41", "PermissionError"),
    "claiming success": (
        "import os\nfor fd in range(256):\n    try: os.write(fd, b'ready\\npassed\\n')\n    except OSError: pass\nos._exit(0)",
        "passed",
    ),
    "hunting the password in memory": (
        "import gc, os, re, sys\nseen = []\nframe = sys._getframe()\nwhile frame: seen += map(repr, frame.f_locals.values()); "
        "frame = frame.f_back\nseen += [repr(o) for o in gc.get_objects() if isinstance(o, (str, bytes, dict, list))]\n"
        "for text in re.findall('[0-9a-f]{32}', ' '.join(seen)):\n    for fd in range(100, 110):\n"
        "        try: os.write(fd, text.encode())\n        except OSError: pass\nos._exit(0)",
        "left before|^[0-9a-f]{32}",
    ),
    "other builtins": (
        "import builtins\nbuiltins.abs = lambda x: 42\nbuiltins.AssertionError = ValueError\nabs = lambda x: 42\n"
        "int = lambda x: 42\ndef answer(): return 41",
        "AssertionError",
    ),
    "a tracer that jumps": (
        "import sys\ndef jump(frame, event, argument):\n    if frame.f_code.co_filename == 'tests.py': frame.f_lineno = 2\n"
        "    return jump\n"
        "sys.settrace(jump)\ndef answer(): return 41",
        "AssertionError",
    ),
    "its own check": ("def check(function): pass\ndef answer(): return 41", "AssertionError"),
    "an open string": ('def answer(): return 41\nif False: """', "SyntaxError"),
    "no code at all": ("", "NameError"),
}
TESTS = "def check(function):\n    assert abs(int(function())) == 42\ncheck(answer)\n"
