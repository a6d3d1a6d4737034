"""The tables of system calls equal those of the kernel's headers."""

import re
import sys
from pathlib import Path

import pytest

from headway.evaluation.sandbox import CHILD_PROCESS

HEADERS = ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm-generic/unistd.h")


@pytest.fixture(scope="module")
def seccomp():
    sys.path.insert(0, str(CHILD_PROCESS))  # the child imports it from its own folder
    try:
        import seccomp
    finally:
        sys.path.remove(str(CHILD_PROCESS))
    return seccomp


@pytest.mark.parametrize("column", [0, 1])
def test_numbers_are_those_of_the_kernel(column, seccomp):
    header = Path(HEADERS[column])
    if not header.is_file():
        pytest.skip(f"{header} is not installed")
    numbers = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\s*$", header.read_text(), re.MULTILINE))
    special = {"clone": seccomp.CLONE, "clone3": seccomp.CLONE3, "socketpair": seccomp.SOCKETPAIR, "prlimit64": seccomp.PRLIMIT}
    for name, numbers_here in (seccomp.DENIED | special).items():
        assert numbers_here[column] == (int(numbers[name]) if name in numbers else None), name


@pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])
def test_every_jump_lands_inside_the_filter_and_it_fits_the_kernel(machine, column, seccomp):
    steps = seccomp.steps(column, seccomp.MACHINES[machine][1])
    assert len(steps) < 4096
    assert steps[-1][0] == seccomp.RETURN
    for place, (_, yes, no, _) in enumerate(steps):
        assert place + 1 + max(yes, no) < len(steps) or steps[place][0] == seccomp.RETURN
