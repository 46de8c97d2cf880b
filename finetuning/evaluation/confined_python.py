"""Runs a program that nobody has read: the child of `python_tests`, which confines itself before it does.

It is run by its path, without the environment's packages, and imports nothing of this project:

    (echo WORD; cat program.py) | python -S -s -P finetuning/evaluation/confined_python.py REPORT_FD

What reaches the file descriptor REPORT_FD is `WORD ended`, once the program and its threads ran to their end, or
`WORD unconfined: ` and why this machine cannot confine it. The program, which may write there too, has no such word.

Sources: https://docs.kernel.org/userspace-api/landlock.html, https://man7.org/linux/man-pages/man3/seccomp_init.3.html
"""

import ctypes
import os
import resource
import sys
import threading
from pathlib import Path

SECONDS = 8  # of computing
MEMORY = 2**30  # bytes of addresses
FILE = 2**20  # bytes of one file
OPEN_FILES = 64

# Landlock, by the kernel's numbers, which are the same on all architectures.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION, PATH_BENEATH = 1, 1
OLDEST = 3  # of Landlock's versions: before Linux 6.2 files could be cut short that may only be read
READ, OWN_FOLDER, EVERYTHING = 0b1101, 0b100_0001_0010_1110, 0b111_1111_1111_1111
READ_FILE, WRITE_FILE = 0b100, 0b10
NO_NEW_PRIVILEGES, DIE_WITH_PARENT, KILL = 38, 1, 9

# All that a program of one process and its threads asks of the kernel: no network, no process, no signal, no mode of a
# file. `socketpair` is a pipe within the process, which asyncio wants.
ALLOWED = (
    "access alarm brk clock_getres clock_gettime clock_nanosleep close copy_file_range dup dup2 dup3 "
    "epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_wait eventfd2 exit exit_group faccessat "
    "faccessat2 fdatasync flock fstat fstatfs fsync ftruncate futex getcwd getdents getdents64 "
    "getegid geteuid getgid getitimer getpgrp getpid getppid getrandom getrlimit getrusage gettid "
    "gettimeofday getuid lseek lstat madvise membarrier mmap mprotect mremap munmap nanosleep newfstatat "
    "open openat pipe pipe2 poll ppoll pread64 preadv pselect6 pwrite64 pwritev read readlink readlinkat "
    "readv recvfrom rename renameat renameat2 restart_syscall rseq rt_sigaction rt_sigprocmask "
    "rt_sigreturn sched_getaffinity sched_yield select sendfile set_robust_list setitimer sigaltstack "
    "socketpair stat statx sysinfo time times umask uname unlink unlinkat write writev"
)
ACT_ALLOW, ACT_ERRNO, ENOSYS, EACCES = 0x7FFF0000, 0x00050000, 38, 13
EQUAL, MASKED_EQUAL = 4, 7
THREAD, FIONBIO, F_DUPFD_CLOEXEC = 0x00010000, 0x5421, 1030


class Unconfined(Exception):
    """This machine lacks what would confine a program."""


class Ruleset(ctypes.Structure):
    """struct landlock_ruleset_attr, as far as it is about files."""

    _fields_ = (("handled_access_fs", ctypes.c_uint64),)


class PathBeneath(ctypes.Structure):
    """struct landlock_path_beneath_attr."""

    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


class Compare(ctypes.Structure):
    """struct scmp_arg_cmp: what an argument of a system call has to be."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operation", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


# What is allowed where one of the arguments (by number, from 0) is this.
ALLOWED_WHERE = (
    ("clone", Compare(0, MASKED_EQUAL, THREAD, THREAD)),  # to start threads and no processes
    ("prlimit64", Compare(2, EQUAL, 0, 0)),  # to read limits, which root could raise
    ("sendto", Compare(4, EQUAL, 0, 0)),  # to send to the other end of a pair, and to no address
    ("ioctl", Compare(1, EQUAL, FIONBIO, 0)),  # not to wait for it
    # To copy, lock and flag descriptors, and not to have signals sent when something happens to them.
    *(("fcntl", Compare(1, EQUAL, command, 0)) for command in (*range(8), F_DUPFD_CLOEXEC)),
)


def limit() -> None:
    """Limit computing time, memory and files; let the process die with its parent's thread."""
    for name, most in (
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_FSIZE, FILE),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(name, (most, most))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(DIE_WITH_PARENT, KILL, 0, 0, 0)
    libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def confine_files() -> None:
    """Allow what Python and its libraries need to be read, files of the current folder to be written, and no others."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(CREATE_RULESET, None, 0, VERSION) < OLDEST:
        raise Unconfined(f"Landlock {OLDEST} is missing, which Linux has from 6.2 on where it is switched on")
    ruleset = libc.syscall(CREATE_RULESET, ctypes.byref(Ruleset(EVERYTHING)), ctypes.sizeof(Ruleset), 0)
    python = [str(Path(sys.base_prefix, "lib")), str(Path(os.__file__).parent)]
    allowed = {
        **dict.fromkeys(["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", *python], READ),
        **dict.fromkeys(["/dev/urandom", "/dev/zero", "/etc/ld.so.cache", "/etc/localtime"], READ_FILE),
        "/dev/null": READ_FILE | WRITE_FILE,
        str(Path.cwd()): OWN_FOLDER,
    }
    for path, access in allowed.items():
        if Path(path).exists():
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rule = PathBeneath(access, opened)
            if libc.syscall(ADD_RULE, ruleset, PATH_BENEATH, ctypes.byref(rule), 0):
                raise Unconfined(f"Landlock refuses a rule for {path}: {os.strerror(ctypes.get_errno())}")
            os.close(opened)
    if libc.syscall(RESTRICT_SELF, ruleset, 0):
        raise Unconfined(f"Landlock refuses: {os.strerror(ctypes.get_errno())}")
    os.close(ruleset)


def confine_calls() -> None:
    """Have the kernel refuse every system call that is not allowed here, for good."""
    try:
        seccomp = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        raise Unconfined("libseccomp.so.2 is missing; its package is libseccomp2 or libseccomp") from None
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(ACT_ERRNO | EACCES))

    def refused(action: int, name: str, *arguments: Compare) -> bool:
        call = seccomp.seccomp_syscall_resolve_name(name.encode())
        given = (Compare * len(arguments))(*arguments)
        # Below zero: not a call of this architecture.
        return call >= 0 and seccomp.seccomp_rule_add_array(context, action, call, len(arguments), given) != 0

    failed = [name for name in ALLOWED.split() if refused(ACT_ALLOW, name)]
    failed += [name for name, argument in ALLOWED_WHERE if refused(ACT_ALLOW, name, argument)]
    # Its flags are out of a filter's sight, and libc does without it where it is missing.
    failed += ["clone3"] * refused(ACT_ERRNO | ENOSYS, "clone3")
    if failed or seccomp.seccomp_load(context):
        raise Unconfined(f"seccomp refuses {', '.join(failed) or 'the filter'}")


def main() -> None:
    """Run the program from standard input in confinement, write how it ended to REPORT_FD, and end the process."""
    report, word, program = int(sys.argv[1]), sys.stdin.buffer.readline().strip(), sys.stdin.buffer.read()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    sys.argv[1:] = []
    try:
        limit()
        confine_files()
        confine_calls()
    except Unconfined as reason:
        os.write(report, word + f" unconfined: {reason}".encode())
        os._exit(1)
    try:
        exec(compile(program, "answer.py", "exec"), {"__name__": "__main__"})
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
    except BaseException:  # SystemExit too; Python itself would wait for the threads
        os._exit(1)
    os.write(report, word + b" ended")
    os._exit(0)


if __name__ == "__main__":
    main()
