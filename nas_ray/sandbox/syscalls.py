"""The system calls: which a network may make, which are acts that it may not, and what each is called.

In: nothing. Out: tables for the filter (`nas_ray.sandbox.seccomp`) and for the witness that names attempts
(`nas_ray.sandbox.witness`). What stands in no table does not exist for a candidate (ENOSYS), which is also what a
library asks in order to fall back to something older. Names that a machine's architecture lacks are left out there.
"""

from __future__ import annotations

# Computing, memory, threads, time, its own signals, and files as far as the file layer lets it.
ALLOWED = """
read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 close lseek _llseek fsync fdatasync
sync_file_range ftruncate ftruncate64 fallocate fadvise64 readahead sendfile sendfile64 copy_file_range splice flock
fstat fstat64 stat stat64 lstat lstat64 fstatat64 newfstatat statx statfs statfs64 fstatfs fstatfs64 getdents getdents64
access faccessat faccessat2 readlink readlinkat getcwd chdir fchdir umask dup dup2 dup3 pipe pipe2
poll ppoll select _newselect pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd
eventfd2 timerfd_create timerfd_settime timerfd_gettime signalfd signalfd4
brk munmap mremap mprotect madvise msync mincore mlock mlock2 munlock membarrier
rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack rt_sigpending rt_sigtimedwait rt_sigsuspend pause restart_syscall
nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times getitimer setitimer alarm
timer_create timer_settime timer_gettime timer_getoverrun timer_delete
futex futex_waitv get_robust_list set_robust_list set_tid_address rseq exit_group wait4 waitid
sched_yield sched_getaffinity sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min
sched_rr_get_interval getpriority getcpu
getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getgroups getpgid getpgrp getsid capget
getrusage getrlimit ugetrlimit setrlimit sysinfo uname getrandom arch_prctl
""".split()
# Answered as a file system without extended attributes would.
UNSUPPORTED = "listxattr llistxattr flistxattr getxattr lgetxattr fgetxattr".split()

# Acts that no network needs: the kind that an outcome names, and the calls.
ACTS = {
    "network": "socket socketpair connect bind listen accept accept4 shutdown getsockname getpeername getsockopt "
    "setsockopt sendmmsg recvmmsg",
    "process": "fork vfork execve execveat ptrace process_vm_readv process_vm_writev process_madvise process_mrelease "
    "pidfd_open pidfd_getfd kcmp",
    "signal": "pidfd_send_signal",
    "privilege": "setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capset chroot "
    "pivot_root mount umount umount2 move_mount open_tree fsopen fsmount fsconfig fspick mount_setattr unshare setns "
    "bpf perf_event_open keyctl add_key request_key io_uring_setup io_uring_enter io_uring_register userfaultfd "
    "init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff sethostname "
    "setdomainname settimeofday clock_settime clock_adjtime adjtimex iopl ioperm modify_ldt quotactl quotactl_fd acct "
    "syslog open_by_handle_at name_to_handle_at fanotify_init lookup_dcookie nfsservctl seccomp vhangup uselib "
    "personality",
    "memory": "memfd_create memfd_secret shmget shmat shmctl shmdt semget semop semctl semtimedop msgget msgsnd msgrcv "
    "msgctl mq_open mq_unlink",
    "filesystem": "openat2 mknod mknodat symlink symlinkat fsetxattr fremovexattr setxattr lsetxattr removexattr "
    "lremovexattr inotify_init inotify_init1",
}

# Calls that are an act only with some arguments; the witness decides. Thread identifiers and process identifiers come
# in registers, so that nothing can change between the judgement and the call.
CLONE = ("clone",)
EXIT = ("exit",)  # of a thread; of the main thread it would leave the others running where nobody looks
MAPPING = ("mmap", "mmap2")  # shared and anonymous: memory that the kernel counts for nobody once it is given back
SIGNALLING = ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")
LIMITING = ("prlimit64",)  # with another process as its target
CHANNEL_CALLS = ("sendto", "sendmsg", "recvfrom", "recvmsg")  # allowed on the channel to the supervisor alone
FILE_CONTROL = ("fcntl", "fcntl64")
DEVICE_CONTROL = ("ioctl",)
PROCESS_CONTROL = ("prctl",)

# Calls that name files, and where: (argument of the folder's descriptor, or None, argument of the path).
OPENING = {"open": (None, 0), "creat": (None, 0), "openat": (0, 1)}
CHANGING: dict[str, tuple[tuple[int | None, int], ...]] = {
    "mkdir": ((None, 0),), "mkdirat": ((0, 1),), "rmdir": ((None, 0),), "unlink": ((None, 0),), "unlinkat": ((0, 1),),
    "rename": ((None, 0), (None, 1)), "renameat": ((0, 1), (2, 3)), "renameat2": ((0, 1), (2, 3)),
    "link": ((None, 0), (None, 1)), "linkat": ((0, 1), (2, 3)),
}  # fmt: skip
# Calls that the file layer does not know: inside the scratch folder they are answered without being made.
MARKING: dict[str, tuple[int | None, int | None]] = {
    "chmod": (None, 0), "fchmodat": (0, 1), "fchmodat2": (0, 1), "chown": (None, 0), "lchown": (None, 0),
    "fchownat": (0, 1), "utime": (None, 0), "utimes": (None, 0), "futimesat": (0, 1), "utimensat": (0, 1),
    "utimensat_time64": (0, 1), "fchmod": (0, None), "fchown": (0, None),
}  # fmt: skip

# close_range: with flags 0 or CLOSE_RANGE_CLOEXEC; the third flag takes a thread's descriptors out of sight.
CLOSE_FLAGS = (0, 4)
# fcntl: duplicates, flags, locks, sizes and seals; what has signals sent to any process is an act.
FILE_CONTROLS = (0, 1, 2, 3, 4, 5, 6, 7, 9, 36, 37, 38, 1025, 1030, 1032, 1033, 1034)
SIGNAL_CONTROLS = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX
# ioctl: TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
DEVICE_CONTROLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
SIGNAL_DEVICE_CONTROLS = (0x8901, 0x8902, 0x5412, 0x541C)  # FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX
# (mask, value) of a GPU's: NVIDIA's control devices ('F'), its unified memory, DRM ('d'), AMD's ('K').
GPU_CONTROLS = ((0xFF00, 0x4600), (0xFFFF_FF00, 0), (0xFFFF_FF00, 0x3000_0000), (0xFF00, 0x6400), (0xFF00, 0x4B00))
# prctl: get and set the thread's name, and questions. What would undo a wall does not exist.
PROCESS_CONTROLS = (15, 16, 3, 21, 23, 38, 39, 41, 42, 0x53564D41)
UNDOING_CONTROLS = (1, 4, 22, 35, 36)  # PR_SET_PDEATHSIG, _DUMPABLE, _SECCOMP, _MM, _CHILD_SUBREAPER
