"""What a process of the same user, or root, tries against another one to get at its memory and descriptors.

intruder.py trace|read|descriptor PID: prints the error's name, or OK.
intruder.py descriptors PID PATTERN: takes every descriptor (pidfd_getfd(2)), maps what can be mapped, and prints how many
were taken and how many hold PATTERN.
"""

import ctypes
import errno
import mmap
import os
import sys

PTRACE_ATTACH = 16
PIDFD_GETFD = 438  # on every architecture

libc = ctypes.CDLL(None, use_errno=True)


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def trace(pid):
    checked(libc.ptrace(PTRACE_ATTACH, pid, None, None))


def read(pid):
    class Range(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]

    buffer = ctypes.create_string_buffer(16)
    local = Range(ctypes.addressof(buffer), 16)
    # The address does not matter: permission is asked for first.
    remote = Range(4096, 16)
    checked(libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0))


def take(pidfd, number):
    return checked(libc.syscall(PIDFD_GETFD, pidfd, number, 0))


def descriptor(pid):
    take(os.pidfd_open(pid), 0)


def contents(taken):
    size = os.fstat(taken).st_size
    try:
        with mmap.mmap(taken, size, mmap.MAP_SHARED, mmap.PROT_READ) as mapping:
            return mapping[:]
    except (OSError, ValueError):
        return b""


def descriptors(pid, pattern):
    pidfd = os.pidfd_open(pid)
    taken = [take(pidfd, int(number)) for number in os.listdir(f"/proc/{pid}/fd")]
    held = [contents(number) for number in taken]
    secret = sum("secretmem" in os.readlink(f"/proc/self/fd/{number}") for number in taken)
    print(len(taken), secret, sum(pattern.encode() in bytes for bytes in held))


def main():
    deed, pid = sys.argv[1], int(sys.argv[2])
    if deed == "descriptors":
        return descriptors(pid, sys.argv[3])
    try:
        {"trace": trace, "read": read, "descriptor": descriptor}[deed](pid)
        print("OK")
    except OSError as error:
        print(errno.errorcode[error.errno])


main()
