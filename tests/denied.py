"""A process in which the system calls of systemd's group @resources are refused, as in `deploy/systemd`'s units."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

import pytest

# On x86-64. As systemd.exec(5) has the group; getting and setting limits is prlimit64 there, which is not in it.
RESOURCES = {
    **{"ioprio_set": 251, "mbind": 237, "migrate_pages": 256, "move_pages": 279, "sched_setaffinity": 203},
    **{"sched_setattr": 314, "sched_setparam": 142, "sched_setscheduler": 144, "set_mempolicy": 238},
    **{"set_mempolicy_home_node": 450, "setpriority": 141, "setrlimit": 160},
}
_SET_NO_NEW_PRIVILEGES, _SET_FILTER, _FILTER = 38, 22, 2  # of prctl
_LOAD_NUMBER, _IF_EQUAL, _ANSWER = 0x20, 0x15, 0x06
_ALLOW, _REFUSE = 0x7FFF_0000, 0x0005_0001  # with EPERM, as SystemCallErrorNumber says


def skip_elsewhere() -> None:
    """Skip the test where these are other numbers."""
    if platform.machine() != "x86_64":
        pytest.skip(f"the numbers of system calls are those of x86_64, not of {platform.machine()}")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def refuse_resources() -> None:
    """Refuse them from now on in this thread, and in those that it starts. To be called in a process of its own."""
    steps = [_step(_LOAD_NUMBER, 0)]
    for number in RESOURCES.values():
        steps += [_step(_IF_EQUAL, number, otherwise=1), _step(_ANSWER, _REFUSE)]
    code = b"".join([*steps, _step(_ANSWER, _ALLOW)])
    kept = ctypes.create_string_buffer(code)
    program = _Program(len(code) // len(steps[0]), ctypes.cast(kept, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0), (_SET_FILTER, _FILTER, ctypes.byref(program), 0, 0)):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _step(code: int, value: int, *, otherwise: int = 0) -> bytes:
    return struct.pack("HBBI", code, 0, otherwise, value)
