"""Separate namespaces for a program in the sandbox (`man 7 namespaces`). Runs in the child: standard library only.

Network: a loopback device that is down. Processes: only the program's own. Files: Python's, read-only, and a small /tmp in memory.
"""

import ctypes
import os
import struct
from collections.abc import Iterable

from kernel import LIBC, checked, syscall

NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x00020000,
    0x02000000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
EVERYTHING = NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWPID | NEWNET
NOSUID, NODEV, NOEXEC, BIND, REC, PRIVATE, DETACH = 2, 4, 8, 4096, 16384, 1 << 18, 2
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
MOUNT_SETATTR, RECURSIVE, READ_ONLY = 442, 0x8000, 1 | 2 | 4  # read-only, nosuid, nodev
NOBODY = 65534
PR_SET_PDEATHSIG, SIGKILL = 1, 9
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")


def enter(readable: Iterable[str], new_root: str, megabytes: int) -> None:
    """Continue in a new, isolated process as user nobody. The calling process waits and ends with the same exit code.

    Args:
        readable: folders and files to mount read-only.
        new_root: an empty folder that becomes the root.
        megabytes: size of /tmp.
    Raises:
        OSError: the kernel, or a container around this process, does not allow namespaces.
    """
    if os.geteuid() == 0:
        checked("unshare", LIBC.unshare(EVERYTHING))
    else:
        user, group = os.geteuid(), os.getegid()
        checked("unshare", LIBC.unshare(EVERYTHING | NEWUSER))
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{NOBODY} {user} 1")
        _write("/proc/self/gid_map", f"{NOBODY} {group} 1")
    _mount_root(readable, new_root, megabytes)
    _continue_in_child()  # as the first process of the new namespace: all others end with it
    _continue_in_child()  # the first process of a namespace ignores its own alarms, so the program is the second
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    drop_capabilities()
    die_with_parent()  # a change of user clears this setting


def drop_capabilities() -> None:
    """Give up all administrator rights of this process."""
    header, none = struct.pack("Ii", 0x20080522, 0), bytes(24)
    checked("capset", LIBC.capset(ctypes.create_string_buffer(header, 8), ctypes.create_string_buffer(none, 24)))


def die_with_parent() -> None:
    checked("prctl", LIBC.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))


def _continue_in_child() -> None:
    """Fork and continue in the child. The parent waits and ends with the exit code of the child."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)
    die_with_parent()


def _mount_root(readable: Iterable[str], new_root: str, megabytes: int) -> None:
    _mount(None, "/", None, REC | PRIVATE)
    _mount("tmpfs", new_root, "tmpfs", NOSUID | NODEV, "mode=755,size=1m")
    for path in readable:
        target = new_root + path
        if os.path.islink(path) and os.path.dirname(path) == "/":  # /lib -> usr/lib
            os.symlink(os.readlink(path), target)
        elif os.path.isdir(path):
            os.makedirs(target, exist_ok=True)
            _mount(path, target, None, BIND | REC)
    os.makedirs(f"{new_root}/tmp")
    os.makedirs(f"{new_root}/dev")
    for device in DEVICES:
        _write(new_root + device, "", os.O_CREAT)
    attributes = READ_ONLY.to_bytes(8, "little") + bytes(24)
    syscall("mount_setattr", MOUNT_SETATTR, -100, new_root.encode(), RECURSIVE, attributes, 32)
    for device in DEVICES:
        _mount(device, new_root + device, None, BIND)
    _mount("tmpfs", f"{new_root}/tmp", "tmpfs", NOSUID | NODEV | NOEXEC, f"mode=1777,size={megabytes}m,nr_inodes=1k")
    os.chdir(new_root)
    syscall("pivot_root", PIVOT_ROOT[os.uname().machine], b".", b".")
    checked("umount", LIBC.umount2(b".", DETACH))
    os.chdir("/tmp")


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    texts = [text.encode() if text is not None else None for text in (source, target, kind, options)]
    checked(f"mount on {target}", LIBC.mount(*texts[:3], ctypes.c_ulong(flags), texts[3]))


def _write(path: str, text: str, flags: int = 0) -> None:
    file = os.open(path, os.O_WRONLY | flags, 0o644)
    os.write(file, text.encode())
    os.close(file)
