"""Every kind of hostile program meets a wall, and what it did has a name, also where it swallows the error."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator

import pytest
from candidate_programs import GOOD
from hostile_programs import ESCAPED, HostileProgram, hostile_programs

from nas_ray.config import BudgetConfig, ContainmentConfig, DatasetConfig, ProtocolConfig
from nas_ray.datasets import load_dataset
from nas_ray.outcome import Outcome
from nas_ray.sandbox import Sandbox

BUDGET = BudgetConfig(train_seconds=2.0, build_seconds=2.0, memory_gib=0.5)
CONTAINMENT = ContainmentConfig(threads=16, scratch_mib=32, scratch_files=200, output_mib=8)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    dataset = load_dataset(DatasetConfig(train_limit=64, validation_limit=64))
    with Sandbox("cpu", dataset, ProtocolConfig(), BUDGET, containment=CONTAINMENT) as sandbox:
        yield sandbox


def one_of_each_act() -> list[HostileProgram]:
    """Every act once, the places and ways in turn; `tests/test_soak.py` has them all."""
    chosen: dict[str, list[HostileProgram]] = {}
    for program in hostile_programs():
        chosen.setdefault(program.name.partition(",")[0], []).append(program)
    return [programs[number % len(programs)] for number, programs in enumerate(chosen.values())]


@pytest.mark.parametrize("program", one_of_each_act(), ids=lambda program: program.name)
def test_hostile_program_ends_as_it_may(sandbox: Sandbox, program: HostileProgram) -> None:
    measurement = sandbox.evaluate(program.code)
    assert measurement.outcome in program.outcomes, measurement
    assert ESCAPED not in measurement.output
    assert (measurement.accuracy or 0.0) <= program.most_accurate


@pytest.mark.parametrize(
    ("act", "detail"),
    [
        ("socket.create_connection(('127.0.0.1', 9))", "network (socket, IPv4) in import"),
        ("os.fork()", "process (fork) in import"),
        ("open('/etc/passwd')", "filesystem (open /etc/passwd) in import"),
        ("os.unlink('/etc/hostname')", "filesystem (unlink /etc/hostname) in import"),
        ("os.rename('/etc/hostname', 'mine')", "filesystem (rename /etc/hostname) in import"),
        ("os.kill(os.getppid(), 0)", "signal (kill) in import"),
        ("os.setuid(0)", "privilege (setuid) in import"),
        ("os.chmod('/etc', 0o755)", "filesystem (chmod /etc) in import"),
        ("os.memfd_create('x')", "memory (memfd_create) in import"),
        ("open('/proc/self/environ')", "filesystem (open "),
        ("ctypes.CDLL(None).open(b'/etc/shadow\\xff\\x1b[31m', 0x41)", "filesystem (write /etc/shadow\ufffd)"),
        ("ctypes.CDLL(None).prctl(4, 0)", "privilege (prctl 4) in import"),
    ],
)
def test_a_swallowed_attempt_counts_and_is_named(sandbox: Sandbox, act: str, detail: str) -> None:
    code = f"import ctypes, os, socket\ntry:\n    {act}\nexcept BaseException:\n    pass\n" + GOOD
    measurement = sandbox.evaluate(code)
    assert measurement.outcome is Outcome.FORBIDDEN, measurement
    assert measurement.detail.startswith(detail)


WRITE = "file = open('x', 'wb')\nwhile True: file.write(bytes(1 << 20))"
WRITE_MANY = "for i in range(8): open(str(i), 'wb').write(bytes(8 << 20))\ntime.sleep(1)"
TOUCH_MANY = "for i in range(500): open(str(i), 'wb').close()\ntime.sleep(1)"
HIDE = "os.mkdir('hidden')\nos.mkdir('h', 0o300)\nopen('h/x', 'wb').write(bytes(40 << 20))\ntime.sleep(1)"
START_THREADS = "for i in range(99): threading.Thread(target=time.sleep, args=(9,)).start()"
SHARE = "kept = mmap.mmap(-1, 600 << 20)"
# Each page is given back as soon as it was used, so that no gauge sees it; the kernel keeps it all the same.
GIVE_BACK = """kept = mmap.mmap(-1, 600 << 20)
for i in range(600):
    kept[i << 20] = 1
    kept.madvise(mmap.MADV_DONTNEED, i << 20, 1 << 20)"""
MAP_DELETED = """for i in range(8):
    with open('x', 'w+b') as file:
        file.write(bytes(8 << 20)); file.flush()
        libc = ctypes.CDLL(None)
        libc.mmap.restype = ctypes.c_void_p
        assert libc.mmap(None, ctypes.c_size_t(4096), 1, 1, file.fileno(), ctypes.c_long(0)) != (1 << 64) - 1
    os.unlink('x')
time.sleep(1)"""
EXIT_MAIN = "threading.Thread(target=time.sleep, args=(9,)).start()\nctypes.CDLL(None).syscall(60, 0)"


@pytest.mark.parametrize(
    ("act", "outcome", "detail"),
    [
        (WRITE, Outcome.LIMIT_EXCEEDED, "scratch: a file of more than"),
        (WRITE_MANY, Outcome.LIMIT_EXCEEDED, "MiB > 32 MiB in import"),
        (TOUCH_MANY, Outcome.LIMIT_EXCEEDED, "scratch: more than 200 files"),
        (HIDE, Outcome.LIMIT_EXCEEDED, "scratch: "),
        (MAP_DELETED, Outcome.LIMIT_EXCEEDED, "MiB > 32 MiB in import"),
        (START_THREADS, Outcome.LIMIT_EXCEEDED, "threads: 18 > 17 in import"),
        ("while True: print('x' * (1 << 20))", Outcome.LIMIT_EXCEEDED, "> 8 MiB in import"),
        (
            "kept = [(b'x' * (1 << 22), time.sleep(0.002)) for _ in range(400)]",
            Outcome.OUT_OF_MEMORY,
            "GiB > 0.5 GiB in import",
        ),
        (SHARE, Outcome.OUT_OF_MEMORY, "of shared memory asked for in import"),
        (GIVE_BACK, Outcome.OUT_OF_MEMORY, "of shared memory asked for in import"),
        (EXIT_MAIN, Outcome.FORBIDDEN, "process (exit of the main thread alone) in import"),
        ("time.sleep(9)", Outcome.TIMEOUT, "2 s in import"),
    ],
)
def test_limits_are_named_with_value_and_limit(sandbox: Sandbox, act: str, outcome: Outcome, detail: str) -> None:
    measurement = sandbox.evaluate(f"import ctypes, mmap, os, threading, time\n{act}\n{GOOD}")
    assert measurement.outcome is outcome, measurement
    assert detail in measurement.detail


@pytest.mark.parametrize(
    "call",
    [
        "os.path.exists(os.open('nothere/' * 300, 0))",
        "os.mkdir('nothere/x')",
        "os.kill(os.getpid(), 0)",
    ],
)
def test_a_flood_of_calls_for_the_witness_holds_up_no_limit(sandbox: Sandbox, call: str) -> None:
    flood = f"""
    import os, threading
    def flood():
        while True:
            try:
                {call}
            except OSError:
                pass
    for _ in range(12):
        threading.Thread(target=flood).start()
    flood()
    """
    begun = time.monotonic()
    measurement = sandbox.evaluate(textwrap.dedent(flood))
    assert measurement.outcome is Outcome.TIMEOUT
    assert time.monotonic() - begun < BUDGET.train_seconds + 4.0  # the machine may be busy; a hole has no end at all


@pytest.mark.parametrize(
    "leaves",
    [
        "for i in range(20): os.makedirs(f'.{i}/x/y')",
        "os.makedirs('a/b')\nos.chmod('a', 0)",
        "for i in range(150):\n    os.mkdir('x')\n    os.chdir('x')",
        "ctypes.CDLL(None).syscall(257, ctypes.c_long(-100), ctypes.c_long(-1), 0)",
    ],
)
def test_what_a_program_leaves_or_asks_costs_no_zygote(sandbox: Sandbox, leaves: str) -> None:
    before = sandbox.zygote_pid
    measurement = sandbox.evaluate(f"import ctypes, os\n{leaves}\n{GOOD}")
    assert measurement.outcome is not Outcome.SANDBOX_ERROR, measurement
    assert sandbox.evaluate(GOOD).outcome is Outcome.VALID
    assert sandbox.zygote_pid == before


def test_what_a_network_may_do_goes_on(sandbox: Sandbox) -> None:
    code = """
    import asyncio, decimal, os, shutil, sqlite3, tempfile, threading, time
    import torch
    with open("notes", "w") as file:
        file.write("x")
    os.chmod("notes", 0o600)
    os.utime("notes")
    shutil.copy2("notes", "copy")
    os.rename("notes", "other")
    os.mkdir("folder")
    os.rmdir("folder")
    os.unlink("other")
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"x")
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"x": torch.ones(2)}, folder + "/x.pt")
        assert torch.load(folder + "/x.pt")["x"].sum() == 2
    thread = threading.Thread(target=time.sleep, args=(0.01,))
    thread.start()
    thread.join()
    assert os.path.expanduser("~") == os.getcwd()
    assert not os.path.exists("not there")
    for path in ("/etc/not-there", "/proc/self/status"):
        try:
            open(path)
        except OSError:
            pass
    time.localtime()
    os.cpu_count()
    os.getloadavg()
    os.urandom(8)
    torch.cuda.is_available()
    """
    measurement = sandbox.evaluate(textwrap.dedent(code) + GOOD)
    assert measurement.outcome is Outcome.VALID, measurement


def test_nothing_of_one_program_reaches_the_next(sandbox: Sandbox) -> None:
    spoil = "open('left', 'w').write('x')\nimport os\nos.makedirs('a/b')\nimport torch\ntorch.relu = None\n"
    sandbox.evaluate(spoil + GOOD)
    code = "import os\nassert os.listdir('.') == [], os.listdir('.')\nimport torch\nassert torch.relu\n" + GOOD
    measurement = sandbox.evaluate(code)
    assert measurement.outcome is Outcome.VALID, measurement


def test_validation_images_come_in_an_order_that_hangs_on_the_program(sandbox: Sandbox) -> None:
    show = "\n        if not self.training:\n            print(x.flatten(1).sum(1)[:8].tolist())\n        x = F.relu"
    code = GOOD.replace("\n        x = F.relu", show)
    printed = [sandbox.evaluate(text).output for text in (code, code + "\n# another\n", code)]
    assert printed[0] != printed[1]
    assert printed[0] == printed[2]
