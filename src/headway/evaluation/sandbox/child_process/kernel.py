"""libc and raw system calls that raise OSError. Runs in the child: standard library only."""

import ctypes
import os

LIBC = ctypes.CDLL(None, use_errno=True)


def checked(action: str, result: int) -> int:
    """`result`, unless negative. Raises OSError with errno and the action that failed."""
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{action}: {os.strerror(error)}")
    return result


def syscall(action: str, number: int, *arguments: object) -> int:
    return checked(action, LIBC.syscall(number, *arguments))
