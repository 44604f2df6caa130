"""Acts that a program may try against its sandbox, as code, by class; `hostile_programs` makes programs of them.

In: nothing. Out: tables of name -> code, which runs after `HEADER`. All acts are bounded and do no harm when run
without a sandbox: signals are SIGURG, which nobody minds, children sleep for seconds, and what is made outside is
named `nas-ray-hostile-*`.
"""

from __future__ import annotations

import platform

ESCAPED = "ESCAPED"  # printed by an act that got through
LEFTOVER = "nas-ray-hostile"  # how every file and name begins that an act would leave outside

NUMBERS = {
    "x86_64": {
        "add_key": 248, "bpf": 321, "capset": 126, "chroot": 161, "clone": 56, "clone3": 435, "execve": 59,
        "fchmodat": 268, "fsopen": 430, "init_module": 175, "io_uring_setup": 425, "keyctl": 250, "kill": 62,
        "memfd_create": 319, "mount": 165, "mq_open": 240, "msgget": 68, "open_tree": 428, "openat": 257,
        "perf_event_open": 298, "personality": 135, "pidfd_getfd": 438, "pidfd_open": 434, "prlimit64": 302,
        "process_vm_readv": 310, "ptrace": 101, "semget": 64, "setns": 308, "setresuid": 117, "shmget": 29,
        "socket": 41, "tgkill": 234, "unshare": 272, "userfaultfd": 323,
    },
    "aarch64": {
        "add_key": 217, "bpf": 280, "capset": 91, "chroot": 51, "clone": 220, "clone3": 435, "execve": 221,
        "fchmodat": 53, "fsopen": 430, "init_module": 105, "io_uring_setup": 425, "keyctl": 219, "kill": 129,
        "memfd_create": 279, "mount": 40, "mq_open": 180, "msgget": 186, "open_tree": 428, "openat": 56,
        "perf_event_open": 241, "personality": 92, "pidfd_getfd": 438, "pidfd_open": 434, "prlimit64": 261,
        "process_vm_readv": 270, "ptrace": 117, "semget": 190, "setns": 268, "setresuid": 147, "shmget": 194,
        "socket": 198, "tgkill": 131, "unshare": 97, "userfaultfd": 282,
    },
}[platform.machine()]  # fmt: skip

HEADER = f"""
import ctypes, glob, mmap, os, signal, socket, stat, sys, threading, time
import torch
import torch.nn as nn

NUMBERS = {NUMBERS!r}
KEPT = []


def syscall(name, *arguments):
    number = NUMBERS[name] if isinstance(name, str) else name
    arguments = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), str(name))
    return result


def mark_child(pid):
    if pid == 0:
        time.sleep(3)
        os._exit(0)


def channels():
    found = []
    for handle in range(1024):
        try:
            if stat.S_ISSOCK(os.fstat(handle).st_mode):
                found.append(handle)
        except OSError:
            pass
    return found
"""

PROCESSES = {
    "fork": "mark_child(os.fork())",
    "fork bomb": "for _ in range(200):\n    mark_child(os.fork())",
    "libc fork": "pid = ctypes.CDLL(None).fork()\nmark_child(pid)\nif pid < 0:\n    raise OSError('fork')",
    "raw clone": "mark_child(syscall('clone', 17, 0, 0, 0, 0))",
    "subprocess": "import subprocess\nsubprocess.run(['id'], check=True)",
    "shell": "assert os.system('true') == 0",
    "popen": "assert os.popen('echo x').read()",
    "posix_spawn": "os.posix_spawn('/bin/sh', ['sh', '-c', 'true'], {})",
    "exec": f"os.execv('/bin/echo', ['echo', '{ESCAPED} exec'])",
    "raw execve": f"""
        path, words = b'/bin/echo', (ctypes.c_char_p * 3)(b'echo', b'{ESCAPED} execve', None)
        syscall('execve', ctypes.c_char_p(path), words, None)""",
    "multiprocessing": """
        import multiprocessing
        worker = multiprocessing.get_context('fork').Process(target=time.sleep, args=(3,))
        worker.start()""",
    "pty": "import pty\nmark_child(pty.fork()[0])",
}

NETWORK = {
    "tcp connect": "s = socket.socket()\ns.settimeout(1)\ns.connect(('127.0.0.1', 47811))",
    "tcp6 connect": "s = socket.socket(socket.AF_INET6)\ns.settimeout(1)\ns.connect(('::1', 47811))",
    "udp send": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 47812))",
    "listen": "s = socket.socket()\ns.bind(('127.0.0.1', 0))\ns.listen(1)",
    "url": "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:47811/', timeout=1)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
    "packet": "socket.socket(17, socket.SOCK_RAW, 0)",
    "abstract unix socket": f"socket.socket(socket.AF_UNIX).bind(chr(0) + '{LEFTOVER}')",
    "ray's socket": """
        s = socket.socket(socket.AF_UNIX)
        s.connect(glob.glob('/tmp/ray/session_*/sockets/raylet')[-1])""",
    "raw socket call": "syscall('socket', 2, 1, 0)",
    "asyncio server": """
        import asyncio
        async def serve():
            await asyncio.start_server(lambda reader, writer: None, '127.0.0.1', 0)
        asyncio.run(serve())""",
}

SIGNALS = {
    "kill parent": "os.kill(os.getppid(), signal.SIGURG)",
    "kill init": "os.kill(1, signal.SIGURG)",
    "kill all": "os.kill(-1, signal.SIGURG)",
    "kill parent's group": "os.killpg(os.getpgid(os.getppid()), signal.SIGURG)",
    "libc kill": "if ctypes.CDLL(None).kill(os.getppid(), 23):\n    raise OSError('kill')",
    "raw kill": "syscall('kill', os.getppid(), 23)",
    "raw tgkill": "syscall('tgkill', os.getppid(), os.getppid(), 23)",
    "pidfd": "signal.pidfd_send_signal(os.pidfd_open(os.getppid()), signal.SIGURG)",
}

FILES = {
    "write to /tmp": f"open('/tmp/{LEFTOVER}-%d' % os.getpid(), 'wb').write(b'x')",
    "write to /var/tmp": f"open('/var/tmp/{LEFTOVER}-%d' % os.getpid(), 'wb').write(b'x')",
    "write to /dev/shm": f"open('/dev/shm/{LEFTOVER}-%d' % os.getpid(), 'wb').write(bytes(1 << 20))",
    "write home": f"open('/root/{LEFTOVER}', 'wb').write(b'x')",
    "write above scratch": f"open('../{LEFTOVER}-%d' % os.getpid(), 'wb').write(b'x')",
    "make a folder": f"os.mkdir('/tmp/{LEFTOVER}-folder-%d' % os.getpid())",
    "raw openat": f"syscall('openat', -100, ctypes.c_char_p(b'/tmp/{LEFTOVER}-raw'), 0o101, 0o600)",
    "read passwd": "open('/etc/passwd').read()",
    "read shadow": "open('/etc/shadow').read()",
    "raw read passwd": "syscall('openat', -100, ctypes.c_char_p(b'/etc/passwd'), 0, 0)",
    "libc fopen": """
        libc = ctypes.CDLL(None)
        libc.fopen.restype = ctypes.c_void_p
        if not libc.fopen(b'/etc/passwd', b'r'):
            raise OSError('fopen')""",
    "numpy fromfile": "import numpy\nnumpy.fromfile('/etc/passwd', dtype='u1')",
    "torch from_file": "torch.from_file('/etc/passwd', size=16, dtype=torch.uint8)",
    "list homes": "os.listdir('/root')\nos.listdir('/home')",
    "list the root": "os.listdir('/')",
    "walk processes": "[open('/proc/%s/cmdline' % p).read() for p in os.listdir('/proc') if p.isdigit()]",
    "parent's environment": "open('/proc/%d/environ' % os.getppid()).read()",
    "parent's memory": "open('/proc/%d/mem' % os.getppid(), 'rb').close()",
    "parent's descriptors": "os.listdir('/proc/%d/fd' % os.getppid())",
    "own memory": "open('/proc/self/mem', 'rb').close()",
    "symbolic link": "os.symlink('/etc/passwd', 'link')",
    "change a mode": "os.chmod('/tmp', os.stat('/tmp').st_mode)",
    "raw change of a mode": "syscall('fchmodat', -100, ctypes.c_char_p(b'/tmp'), os.stat('/tmp').st_mode & 0o7777)",
    "change an owner": "os.chown('/tmp', -1, -1)",
    "extended attribute": "os.setxattr('.', 'user.x', b'x')",
    "shared memory": f"""
        from multiprocessing import shared_memory
        shared_memory.SharedMemory('{LEFTOVER}-shm', create=True, size=4096)""",
}

PRIVILEGES = {
    "become root": "os.setresuid(0, 0, 0)",
    "setuid": "os.setuid(0)",
    "setgroups": "os.setgroups([0])",
    "raw setresuid": "syscall('setresuid', 0, 0, 0)",
    "unshare": "syscall('unshare', 0x10000000)",
    "setns": "syscall('setns', 0, 0)",
    "mount": "syscall('mount', None, None, None, 0, None)",
    "chroot": "os.chroot('.')",
    "ptrace parent": "syscall('ptrace', 16, os.getppid(), 0, 0)",
    "read parent's memory": """
        piece = ctypes.create_string_buffer(16)
        local = (ctypes.c_size_t * 2)(ctypes.addressof(piece), 16)
        syscall('process_vm_readv', os.getppid(), local, 1, local, 1, 0)""",
    "personality": "syscall('personality', 0x0040000)",
    "bpf": "syscall('bpf', 0, None, 0)",
    "perf": "syscall('perf_event_open', None, 0, -1, -1, 0)",
    "keyring": "syscall('add_key', None, None, None, 0, -2)",
    "keyctl": "syscall('keyctl', 0, -3, 0)",
    "userfaultfd": "syscall('userfaultfd', 0)",
    "io_uring": "syscall('io_uring_setup', 4, ctypes.create_string_buffer(256))",
    "memfd": "os.write(os.memfd_create('x'), bytes(1 << 20))",
    "system v shared memory": "syscall('shmget', 0x6e72, 4096, 0o1600)",
    "system v messages": "syscall('msgget', 0x6e72, 0o1600)",
    "system v semaphores": "syscall('semget', 0x6e72, 1, 0o1600)",
    "parent's limits": "syscall('prlimit64', os.getppid(), 7, None, ctypes.create_string_buffer(16))",
    "parent's descriptor": "syscall('pidfd_getfd', syscall('pidfd_open', os.getppid(), 0), 0, 0)",
}

# Refused by the kernel in one way or another; that it is not there at all is as good.
EXOTIC = {
    "raw clone3": "syscall('clone3', ctypes.create_string_buffer(88), 88)",
    "capset": "syscall('capset', ctypes.create_string_buffer(b'\\x22\\x05\\x08\\x20' + bytes(4)), bytes([255] * 24))",
    "init_module": "syscall('init_module', None, 0, None)",
    "open_tree": "syscall('open_tree', -100, ctypes.c_char_p(b'/etc'), 1)",
    "fsopen": "syscall('fsopen', ctypes.c_char_p(b'tmpfs'), 0)",
    "message queue": "syscall('mq_open', ctypes.c_char_p(b'x'), 0o102, 0o600, None)",
    "x32 socket call": "syscall(41 | 0x40000000, 2, 1, 0)",
    "unknown call": "syscall(9999)",
}

ENDLESS = {
    "busy loop": "while True:\n    pass",
    "sleep": "time.sleep(600)",
    "pattern that holds the interpreter's lock": "import re\nre.match(r'(a+)+$', 'a' * 64 + 'b')",
    "deadlock": "lock = threading.Lock()\nlock.acquire()\nlock.acquire(timeout=600)",
    "deaf": """
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        time.sleep(600)""",
    "error that loops when printed": """
        class Slow(Exception):
            def __str__(self):
                while True:
                    pass
        raise Slow""",
}

HUNGRY = {
    "tensors, one after another": "for _ in range(64):\n    KEPT.append(torch.ones(16 << 20))\n    time.sleep(0.005)",
    "list of objects": "for _ in range(40):\n    KEPT.extend(bytes(8000) for _ in range(12_000))",
    "shared anonymous memory": """
        view = mmap.mmap(-1, 3 << 30)
        KEPT.append(view)
        for _ in range(3 << 10):
            view.write(bytes(1 << 20))""",
    "bytes, slowly": "for _ in range(600):\n    KEPT.append(b'1' * (4 << 20))\n    time.sleep(0.004)",
}

OVERDRAWN = {
    "files of medium size": "for n in range(400):\n    open('part%d' % n, 'wb').write(bytes(1 << 20))\ntime.sleep(1)",
    "many files": "for n in range(20_000):\n    open('f%d' % n, 'wb').close()\ntime.sleep(1)",
    "many folders": "for n in range(20_000):\n    os.mkdir('d%d' % n)\ntime.sleep(1)",
    "many threads": """
        for _ in range(500):
            threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
        time.sleep(1)""",
    "flood of output": "block = b'x' * (1 << 20)\nfor _ in range(600):\n    os.write(1, block)",
    "flood of errors": "block = 'x' * (1 << 20)\nfor _ in range(600):\n    sys.stderr.write(block)",
}
ONE_LARGE_FILE = """
    with open('big', 'wb') as file:
        for _ in range(600):
            file.write(bytes(1 << 20))
"""

CRASHES = {
    "read address 0": "ctypes.string_at(0)",
    "abort": "os.abort()",
    "exit at once": "os._exit(0)",
    "kill itself": "os.kill(os.getpid(), signal.SIGKILL)",
    "native stack": """
        sys.setrecursionlimit(10 ** 8)
        class Deep(nn.Module):
            def forward(self, x):
                return self(x) + 1
        Deep()(torch.zeros(1))""",
}

ERRORS = {
    "SystemExit": "sys.exit(0)",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "GeneratorExit": "raise GeneratorExit",
    "reads its input": "input()",
    "recursion": "def again():\n    return again()\nagain()",
    "error without text": """
        class Mute(Exception):
            def __str__(self):
                raise ValueError
        raise Mute""",
    "error with a hostile name": "raise type('\\x1b[31m' + 'N' * 10_000, (Exception,), {})('\\x00' * 10_000)",
}

# Come to nothing and need not be noticed: the network is trained and judged as if they were not there.
IDLE = {
    "secrets in the environment": f"""
        names = set(os.environ)
        pointer = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), 'environ')
        index = 0
        while pointer and pointer[index]:
            names.add(pointer[index].decode('utf-8', 'replace').partition('=')[0])
            index += 1
        if any(word in name for name in names for word in ('AWS', 'SECRET', 'TOKEN', 'PASSWORD', 'RAY_')):
            print('{ESCAPED} secret')""",
    "handler at exit and a thread that stays": """
        import atexit
        atexit.register(time.sleep, 600)
        threading.Thread(target=time.sleep, args=(600,)).start()""",
    "patched exit": "os._exit = lambda code: time.sleep(600)",
    "terminal escapes": "print('\\x1b]0;title\\x07\\x1b[2J' * 100)",
    "own files": "open('own', 'wb').write(bytes(1 << 20))\nos.rename('own', 'owned')",
    "odd names": "open(b'\\xff\\n\\x1b[31m', 'wb').close()\nos.makedirs('closed', 0, exist_ok=True)",
}
DEEP_FOLDERS = """
    home = os.getcwd()
    for _ in range(800):
        os.makedirs('x' * 200, exist_ok=True)
        os.chdir('x' * 200)
    os.chdir(home)
"""

CHEATS = {
    "patched metrics": """
        torch.argmax = torch.Tensor.argmax = lambda *a, **k: torch.zeros(1)
        torch.eq = torch.Tensor.__eq__ = lambda a, b: torch.ones(a.shape, dtype=torch.bool)
        nn.functional.cross_entropy = lambda logits, *a, **k: logits.mean() * 0
        import numpy
        numpy.argmax = numpy.mean = lambda *a, **k: 1""",
    "patched grading": """
        import nas_ray.grading
        nas_ray.grading.grade = lambda *a, **k: (1.0, 0.0)
        sys.modules['nas_ray.sandbox.child'].write_logits = lambda *a, **k: None""",
    "training labels for validation": """
        import gc
        found = [o for o in gc.get_objects() if isinstance(o, torch.Tensor) and o.dtype == torch.int64 and o.ndim == 1]
        labels = max(found, key=len, default=torch.zeros(1, dtype=torch.int64))
        def forward(self, x):
            chosen = labels.repeat(1024)[:len(x)].clamp(0, 9)
            return nn.functional.one_hot(chosen, 10).float() + self.head.bias * 0
        sys.modules['candidate'].Net.forward = forward""",
}
FORGED_RESULT = """
    from nas_ray.sandbox.messages import Trained, encode
    for handle in channels():
        os.write(handle, encode(Trained(0.1, 0, (0.0,))))
    time.sleep(600)
"""

CHANNEL = {
    "garbage": "for handle in channels():\n    os.write(handle, b'[' * 1000)\ntime.sleep(600)",
    "long message": "for handle in channels():\n    os.write(handle, bytes(60_000))\ntime.sleep(600)",
    "flood of messages": "while True:\n    for handle in channels():\n        os.write(handle, bytes([1, 4]))",
}
