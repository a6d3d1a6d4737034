"""File access rules for a program in the sandbox, by Landlock (`man 7 landlock`). Runs in the child: standard library only."""

import ctypes
import os
import struct
from collections.abc import Iterable

from kernel import LIBC, checked, syscall

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
READ_FILE, READ_DIR = 1 << 2, 1 << 3
RIGHTS = {3: 15, 4: 15, 5: 16}  # ABI -> number of file rights; later ABIs add none
MIN_ABI = 3  # earlier ABIs cannot forbid truncation on opening a file
PR_SET_NO_NEW_PRIVS = 38


def restrict(readable: Iterable[str]) -> None:
    """Allow this process to read the `readable` folders, and nothing else, until the process ends.

    Raises:
        OSError: the kernel has no Landlock, or an ABI before 3 (Linux 6.2).
    """
    abi = syscall("Landlock", CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if abi < MIN_ABI:
        raise OSError(f"Landlock: the kernel has ABI {abi}, and {MIN_ABI} is needed (Linux 6.2)")
    handled = struct.pack("Q", (1 << RIGHTS.get(abi, 16)) - 1)
    rules = syscall("Landlock", CREATE_RULESET, ctypes.create_string_buffer(handled, 8), ctypes.c_size_t(8), 0)
    for path in readable:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", READ_FILE | (READ_DIR if os.path.isdir(path) else 0), folder)
        syscall(f"Landlock rule for {path}", ADD_RULE, rules, 1, ctypes.create_string_buffer(rule, 12), 0)
        os.close(folder)
    checked("no_new_privs", LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    syscall("Landlock", RESTRICT_SELF, rules, 0)
    os.close(rules)
