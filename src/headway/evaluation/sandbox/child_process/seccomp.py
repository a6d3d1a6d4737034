"""System call filter for a program in the sandbox (seccomp-bpf, `man 2 seccomp`). Runs in the child: standard library only.

A refused call fails with EPERM and the program continues. The filter cannot be removed. Without processes, sockets and signals, a
program cannot start a fork bomb, reach the network or kill processes.
"""

import ctypes
import os
import struct

from kernel import LIBC, checked

MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the tables below, AUDIT_ARCH
# fmt: off
DENIED: dict[str, tuple[int | None, int | None]] = {  # name -> (x86_64, aarch64); None: that machine has no such call
    # other processes
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "setsid": (112, 157),
    "setpgid": (109, 154), "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440),
    "kcmp": (312, 272), "prctl": (157, 167), "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118), "sched_setattr": (314, 274), "setpriority": (141, 140), "ioprio_set": (251, 30),
    "move_pages": (279, 239), "migrate_pages": (256, 238),
    # network
    "socket": (41, 198), "bind": (49, 200), "connect": (42, 203), "listen": (50, 201), "accept": (43, 202),
    "accept4": (288, 242),
    # memory that outlives a process or escapes the limit
    "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180), "memfd_create": (319, 279),
    # file metadata, not covered by Landlock
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "chown": (92, None), "fchown": (93, 55),
    "lchown": (94, None), "fchownat": (260, 54), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88),
    # the kernel itself
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "move_mount": (429, 429), "open_tree": (428, 428), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264), "bpf": (321, 280), "perf_event_open": (298, 241), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "userfaultfd": (323, 282), "fanotify_init": (300, 262), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "adjtimex": (159, 171), "clock_adjtime": (305, 266), "sethostname": (170, 161), "setdomainname": (171, 162),
    "syslog": (103, 116), "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443), "personality": (135, 92),
    "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None), "vhangup": (153, 58),
}
# fmt: on
CLONE, CLONE3 = (56, 220), (435, 435)
SOCKETPAIR, PRLIMIT = (53, 199), (302, 261)
NEWEST = 447  # newer calls, not reviewed here, fail as on an older kernel
X32 = 0x40000000  # a second table of calls on x86_64

LOAD, EQUAL, AT_LEAST, ANY_BIT, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
NUMBER, ARCHITECTURE, ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; arguments are 8 bytes each, low half first
CLONE_THREAD, SOCK_STREAM = 0x10000, 1
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2


def install() -> None:
    """Install the filter for the rest of this process. Raises OSError if the kernel refuses or the architecture is unknown."""
    if os.uname().machine not in MACHINES:
        raise OSError(f"seccomp: no table of system calls for {os.uname().machine}")
    program = b"".join(struct.pack("HBBI", *step) for step in steps(*MACHINES[os.uname().machine]))
    code = ctypes.create_string_buffer(program, len(program))
    pointer = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    checked("no_new_privs", LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    checked("seccomp", LIBC.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.create_string_buffer(pointer), 0, 0))


def steps(column: int, architecture: int) -> list[tuple[int, int, int, int]]:
    """The filter as BPF instructions: (code, steps to skip if true, steps to skip if false, operand)."""
    program = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        (AT_LEAST, 0, 1, X32),
        (RETURN, 0, 0, KILL),
        (AT_LEAST, 0, 1, NEWEST),
        (RETURN, 0, 0, ENOSYS),
        (EQUAL, 0, 1, CLONE3[column]),  # its flags lie in memory, out of reach of the filter; libc falls back to clone
        (RETURN, 0, 0, ENOSYS),
        (EQUAL, 0, 4, CLONE[column]),  # threads are allowed
        (LOAD, 0, 0, ARGUMENT),
        (ANY_BIT, 1, 0, CLONE_THREAD),
        (RETURN, 0, 0, EPERM),
        (RETURN, 0, 0, ALLOW),
        (EQUAL, 0, 5, SOCKETPAIR[column]),  # asyncio needs stream pairs; a datagram socket could reach another address
        (LOAD, 0, 0, ARGUMENT + 8),
        (AND, 0, 0, 0xF),
        (EQUAL, 1, 0, SOCK_STREAM),
        (RETURN, 0, 0, EPERM),
        (RETURN, 0, 0, ALLOW),
        (EQUAL, 0, 4, PRLIMIT[column]),  # only limits of the calling process
        (LOAD, 0, 0, ARGUMENT),
        (EQUAL, 1, 0, 0),
        (RETURN, 0, 0, EPERM),
        (RETURN, 0, 0, ALLOW),
    ]
    for numbers in DENIED.values():
        number = numbers[column]
        if number is not None:
            program += [(EQUAL, 0, 1, number), (RETURN, 0, 0, EPERM)]
    return [*program, (RETURN, 0, 0, ALLOW)]
