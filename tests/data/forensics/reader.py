#!/usr/bin/env python3
"""reader.py PID: tries every way into another process, looking for the patterns that are on standard input, one a line in
hexadecimal. Prints a JSON object: for each way `found`, `clean`, or the name of the error that the kernel gave."""
import ctypes, errno, json, mmap, os, sys

PTRACE_SEIZE, PTRACE_DETACH, PTRACE_INTERRUPT = 0x4206, 17, 0x4207
PIDFD_GETFD = 438
CHUNK = 1 << 20
LIBC = ctypes.CDLL(None, use_errno=True)


class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def holds(data, patterns):
    return any(pattern in data for pattern in patterns)


def read_file(name):
    def way(pid, patterns):
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return holds(file.read(), patterns)
    return way


def mappings(pid):
    with open(f"/proc/{pid}/maps") as file:
        ranges = [line.split()[0].split("-") for line in file if "[vsyscall]" not in line and line.split()[1][0] == "r"]
    return [(int(start, 16), int(end, 16)) for start, end in ranges]


def read_ranges(pid, patterns, read):
    """Looks into each mapping; what cannot be read of one is left out, unless nothing at all can be read."""
    total = 0
    failure = None
    for start, end in mappings(pid):
        data = b""
        for at in range(start, end, CHUNK):
            try:
                data += read(at, min(CHUNK, end - at))
            except OSError as error:
                failure = error
        total += len(data)
        if holds(data, patterns):
            return True
    if total == 0 and failure is not None:
        raise failure
    return False


def memory(pid, patterns):
    handle = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    return read_ranges(pid, patterns, lambda at, length: os.pread(handle, length, at))


def process_vm_readv(pid, patterns):
    def read(at, length):
        buffer = ctypes.create_string_buffer(length)
        local, remote = Vector(ctypes.addressof(buffer), length), Vector(at, length)
        count = checked(LIBC.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0))
        return buffer.raw[:count]
    return read_ranges(pid, patterns, read)


def ptrace(pid, patterns):
    """Whether a debugger can attach, and what it then reads by the same file as anybody."""
    checked(LIBC.ptrace(PTRACE_SEIZE, pid, None, None))
    try:
        checked(LIBC.ptrace(PTRACE_INTERRUPT, pid, None, None))
        os.waitpid(pid, 0x40000000)
        return memory(pid, patterns)
    finally:
        LIBC.ptrace(PTRACE_DETACH, pid, None, None)


def descriptors(pid, patterns):
    """Takes a copy of each open file, and reads or maps what is behind it. Sockets are left alone."""
    handle = os.pidfd_open(pid)
    for number in range(1024):
        try:
            taken = checked(LIBC.syscall(PIDFD_GETFD, handle, number, 0))
        except OSError as error:
            if error.errno == errno.EBADF:
                continue
            raise
        if holds(content(taken), patterns):
            return True
        os.close(taken)
    return False


def content(descriptor):
    size = os.fstat(descriptor).st_size
    if size == 0:
        return b""
    try:
        with mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ) as mapped:
            return mapped[:]
    except (OSError, ValueError):
        return b""


WAYS = {
    "environ": read_file("environ"), "cmdline": read_file("cmdline"), "maps": read_file("maps"), "mem": memory,
    "process_vm_readv": process_vm_readv, "ptrace": ptrace, "pidfd_getfd": descriptors,
}


def main():
    pid = int(sys.argv[1])
    patterns = [bytes.fromhex(line) for line in sys.stdin]
    outcomes = {}
    for name, way in WAYS.items():
        try:
            outcomes[name] = "found" if way(pid, patterns) else "clean"
        except OSError as error:
            outcomes[name] = errno.errorcode[error.errno]
    print(json.dumps(outcomes))


main()
