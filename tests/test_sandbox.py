"""Whatever a program does, its evaluation ends, and ends with the right word."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from candidate_programs import GOOD, write_program
from hypothesis import given
from hypothesis import strategies as st

from nas_ray.candidate import Build
from nas_ray.config import BudgetConfig, ContainmentConfig, DatasetConfig, ProtocolConfig
from nas_ray.datasets import load_dataset
from nas_ray.outcome import Outcome, Rejection, Stage
from nas_ray.sandbox import Sandbox
from nas_ray.sandbox.messages import (
    CLAIMABLE,
    Entered,
    Failed,
    MalformedMessage,
    Message,
    Step,
    Trained,
    clean_text,
    decode,
    encode,
)

BUDGET = BudgetConfig(train_seconds=20.0, build_seconds=20.0, memory_gib=1.0)
SHAPES = ((1, 1, 8, 8), (10,))


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox("cpu", load_dataset(DatasetConfig()), ProtocolConfig(), BUDGET) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def bare() -> Iterator[Sandbox]:
    """No walls: what the processes themselves are worth."""
    os.environ["NAS_RAY_TEST_SECRET"] = "secret"
    containment = ContainmentConfig(floor="D")
    dataset = load_dataset(DatasetConfig())
    with Sandbox("cpu", dataset, ProtocolConfig(), BUDGET, containment=containment, raise_walls=False) as sandbox:
        yield sandbox
    del os.environ["NAS_RAY_TEST_SECRET"]


@pytest.fixture(scope="module")
def impatient() -> Iterator[Sandbox]:
    budget = BUDGET.model_copy(update={"train_seconds": 2.0, "build_seconds": 2.0})
    with Sandbox("cpu", load_dataset(DatasetConfig()), ProtocolConfig(), budget) as sandbox:
        yield sandbox


def is_running(pid: int) -> bool:
    """False for a process that is gone or waits to be reaped."""
    with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 20.0
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_running(pid)


def test_good_program_is_valid_and_learns(sandbox: Sandbox) -> None:
    measurement = sandbox.evaluate(GOOD)
    assert measurement.outcome is Outcome.VALID, measurement
    assert measurement.accuracy is not None
    assert measurement.accuracy > 0.5
    assert measurement.train_seconds is not None
    assert 0 < measurement.train_seconds < measurement.seconds
    assert measurement.curve[-1] < measurement.curve[0]
    assert 1 << 20 < (measurement.peak_memory_bytes or 0) < 50 << 20  # its own, without what it was forked with
    assert measurement.device == "cpu"


def test_the_same_program_gets_the_same_numbers(sandbox: Sandbox) -> None:
    first, second = sandbox.evaluate(GOOD), sandbox.evaluate(GOOD)
    assert (first.accuracy, first.loss, first.curve) == (second.accuracy, second.loss, second.curve)


def test_build_in_a_child_equals_build_in_this_process(sandbox: Sandbox) -> None:
    from nas_ray.build import build_program

    built = sandbox.build(GOOD, *SHAPES)
    here = build_program(GOOD, *SHAPES, {"lr": 0.01}, BUDGET)
    assert isinstance(built, Build)
    assert isinstance(here, Build)
    assert replace(built, seconds=0.0) == replace(here, seconds=0.0)


@pytest.mark.parametrize(
    ("code", "outcome", "text"),
    [
        ("import os\nos._exit(0)", Outcome.CRASHED, "exit 0 in import"),
        ("import os\nos.abort()", Outcome.CRASHED, "SIGABRT in import"),
        ("import ctypes\nctypes.string_at(0)", Outcome.CRASHED, "SIGSEGV in import"),
        ("raise SystemExit(3)", Outcome.BUILD_ERROR, "3"),
        ("raise KeyboardInterrupt", Outcome.BUILD_ERROR, "KeyboardInterrupt"),
        ("x = bytearray(4 << 30)", Outcome.OUT_OF_MEMORY, "MemoryError"),
        ("import torch\nx = torch.zeros(1 << 32)", Outcome.OUT_OF_MEMORY, "can't allocate memory"),
        ("x = [bytearray(1 << 22) for _ in range(1000)]", Outcome.OUT_OF_MEMORY, ""),
        ("x = 3", Outcome.CONTRACT_ERROR, "class Net"),
        (GOOD.replace("F.relu(self", "F.rlu(self"), Outcome.TRAIN_ERROR, "has no attribute 'rlu'"),
        (GOOD.replace("return self", "return x + self"), Outcome.TRAIN_ERROR, "line 16"),
        (GOOD.replace("return self.head(x.flatten(1))", "return x"), Outcome.INVALID_OUTPUT, ""),
        (GOOD.replace("x.flatten(1))", "x.flatten(1)) * float('nan')"), Outcome.DIVERGED, ""),
        ("def f(): f()\nf()", Outcome.BUILD_ERROR, "recursion"),
        ("import sys\nsys.stdin.read()[0]", Outcome.BUILD_ERROR, "index"),
    ],
)
def test_failure_has_its_outcome(sandbox: Sandbox, code: str, outcome: Outcome, text: str) -> None:
    measurement = sandbox.evaluate(code)
    assert measurement.outcome is outcome, measurement
    assert text in measurement.detail
    assert measurement.stage is Stage.TRAIN
    assert measurement.accuracy is None


def test_memory_that_grows_slowly_is_stopped_by_the_watchdog(sandbox: Sandbox) -> None:
    code = "import time\nx = []\nfor _ in range(400):\n    x.append(b'1' * (4 << 20))\n    time.sleep(0.004)"
    measurement = sandbox.evaluate(code)
    assert measurement.outcome is Outcome.OUT_OF_MEMORY
    assert measurement.detail.endswith("GiB > 1 GiB in import")


@pytest.mark.parametrize(
    ("code", "step"),
    [
        ("while True: pass", "import"),
        (
            "import signal, time\n"
            "for number in signal.valid_signals() - {9, 19}: signal.signal(number, signal.SIG_IGN)\n"
            "while True: time.sleep(1)",
            "import",
        ),
        ("import re\nre.match(r'(a+)+$', 'a' * 64 + 'b')", "import"),
        ("import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()", "import"),
        (write_program("while True: pass", "return x"), "init"),
        (write_program("self.f = nn.Linear(64, 10)", "while True: pass"), "train"),
    ],
)
def test_a_program_that_does_not_end_is_killed_and_its_step_named(impatient: Sandbox, code: str, step: str) -> None:
    measurement = impatient.evaluate(code)
    assert measurement.outcome is Outcome.TIMEOUT
    assert measurement.detail == f"2 s in {step}"


def test_a_build_that_does_not_end_is_killed(impatient: Sandbox) -> None:
    found = impatient.build(write_program("self.f = nn.Linear(64, 10)", "while True: pass"), *SHAPES)
    assert isinstance(found, Rejection)
    assert (found.outcome, found.stage) == (Outcome.TIMEOUT, Stage.BUILD)
    assert found.detail == "2 s in forward"


def test_processes_that_a_program_leaves_behind_are_killed(bare: Sandbox, tmp_path: object) -> None:
    code = f"""
    import os, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            open("{tmp_path}/pid", "w").write(str(os.getpid()))
        time.sleep(1000)
    while not os.path.exists("{tmp_path}/pid") or not open("{tmp_path}/pid").read():
        time.sleep(0.01)
    """
    bare.evaluate(textwrap.dedent(code))
    with open(f"{tmp_path}/pid") as file:
        assert wait_until_gone(int(file.read()))


def test_printed_text_is_bounded_and_clean(sandbox: Sandbox) -> None:
    code = "print('x' * (1 << 20))\nprint('\\x1b[31mred\\x1b[0m \\x07bell')\nraise ValueError('a\\x1b]0;title\\x07b')"
    measurement = sandbox.evaluate(code)
    assert measurement.outcome is Outcome.BUILD_ERROR
    assert measurement.output.endswith("xred bell\n".removeprefix("x"))
    assert len(measurement.output) <= 64 << 10
    assert measurement.detail == "line 3: ab"


def test_a_flood_of_output_is_stopped(sandbox: Sandbox) -> None:
    measurement = sandbox.evaluate("import os\nblock = b'x' * (1 << 20)\nwhile True: os.write(1, block)")
    assert measurement.outcome is Outcome.LIMIT_EXCEEDED
    assert "printed" in measurement.detail


FORGE = """
import os, stat
for handle in range(3, 128):
    try:
        if stat.S_ISSOCK(os.fstat(handle).st_mode):
            break
    except OSError:
        pass
"""


@pytest.mark.parametrize(
    "attack",
    [
        "os.write(handle, b'')",
        "os.write(handle, b'garbage')",
        "os.write(handle, b'[' * 1024)",
        "os.write(handle, bytes(4096))",
    ],
)
def test_a_forged_message_is_an_outcome_and_no_exception(impatient: Sandbox, attack: str) -> None:
    measurement = impatient.evaluate(FORGE + attack + "\nimport time\ntime.sleep(5)")
    assert measurement.outcome in (Outcome.INVALID_OUTPUT, Outcome.TIMEOUT)


def test_a_flood_of_messages_is_stopped(impatient: Sandbox) -> None:
    measurement = impatient.evaluate(FORGE + "while True: os.write(handle, bytes([1, 1]))")
    assert measurement.outcome is Outcome.INVALID_OUTPUT


def test_a_forged_success_scores_no_better_than_chance(sandbox: Sandbox) -> None:
    forged = encode(Trained(0.1, 0, (0.0,))).hex()
    measurement = sandbox.evaluate(FORGE + f"os.write(handle, bytes.fromhex('{forged}'))\nimport time\ntime.sleep(5)")
    assert measurement.accuracy is None or measurement.accuracy < 0.2


@pytest.mark.parametrize("latency_ms", [-1.0, float("nan"), float("inf")])
def test_a_forged_latency_that_cannot_be_is_malformed(latency_ms: float) -> None:
    with pytest.raises(MalformedMessage):
        decode(encode(Trained(0.1, 0, (0.0,), latency_ms)))


def test_seed_and_epochs_of_a_training_take_the_place_of_the_protocols(sandbox: Sandbox) -> None:
    usual, other, longer = sandbox.evaluate(GOOD), sandbox.evaluate(GOOD, seed=1), sandbox.evaluate(GOOD, epochs=3)
    assert [one.epochs for one in (usual, other, longer)] == [1, 1, 3]
    assert len({one.loss for one in (usual, other, longer)}) == 3
    assert longer.loss is not None
    assert usual.loss is not None
    assert longer.loss < usual.loss
    with Sandbox("cpu", load_dataset(DatasetConfig()), ProtocolConfig(epochs=3), BUDGET) as same:
        assert same.evaluate(GOOD, seed=0).loss == longer.loss


def test_the_time_limit_grows_with_the_epochs(impatient: Sandbox) -> None:
    code = "import time\n" + GOOD.replace("x = F.relu", "time.sleep(0.02); x = F.relu", 1)
    assert impatient.evaluate(code, epochs=4).outcome is Outcome.VALID
    assert impatient.evaluate(code.replace("0.02", "0.5"), epochs=1).outcome is Outcome.TIMEOUT


@pytest.fixture(scope="module")
def hasty() -> Iterator[Sandbox]:
    """With a latency budget."""
    budget = BUDGET.model_copy(update={"latency_ms": 20.0})
    with Sandbox("cpu", load_dataset(DatasetConfig()), ProtocolConfig(), budget) as sandbox:
        yield sandbox


def test_a_latency_over_the_budget_is_too_large_and_names_it(hasty: Sandbox) -> None:
    fast = hasty.evaluate(GOOD)
    assert fast.outcome is Outcome.VALID, fast
    assert fast.latency_ms is not None
    assert 0 < fast.latency_ms <= 20
    pause = "import time\nif not self.training and len(x) == 1: time.sleep(0.05)\n"
    slow = write_program(
        "self.head = nn.Linear(in_shape[1] * in_shape[2] * in_shape[3], out_shape[0])",
        pause + "return self.head(x.flatten(1))",
    )
    measurement = hasty.evaluate(slow)
    assert measurement.outcome is Outcome.TOO_LARGE
    assert re.fullmatch(r"latency [\d.]+ ms > 20 allowed", measurement.detail), measurement
    assert measurement.accuracy is None
    assert measurement.latency_ms is not None
    assert hasty.train(slow, 1 << 20).measurement.outcome is Outcome.VALID


def test_a_program_that_fails_on_a_single_image_has_no_latency(sandbox: Sandbox, hasty: Sandbox) -> None:
    code = GOOD.replace("x = F.relu", "assert len(x) > 1\n        x = F.relu", 1)
    measurement = sandbox.evaluate(code)
    assert (measurement.outcome, measurement.latency_ms) == (Outcome.VALID, None)
    assert hasty.evaluate(code).detail == "latency unknown, because forward fails on a single image; 20 ms allowed"


def test_the_child_holds_no_validation_labels_and_no_environment_of_ours(bare: Sandbox) -> None:
    needle = load_dataset(DatasetConfig()).validation_labels[:40].tobytes().hex()
    code = f"""
    import os
    if "NAS_RAY_TEST_SECRET" in os.environ:
        raise ValueError("the environment")
    needle = bytes.fromhex("{needle[:64]}") + bytes.fromhex("{needle[64:]}")
    copies = 0
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
        for line in maps:
            span, rights = line.split()[:2]
            start, end = (int(part, 16) for part in span.split("-"))
            if "r" not in rights or end - start > 1 << 28 or "[v" in line:
                continue
            try:
                memory.seek(start)
                copies += memory.read(end - start).count(needle)
            except (OSError, ValueError):
                continue
    raise ValueError(f"{{copies}} copies")
    """
    measurement = bare.evaluate(textwrap.dedent(code))
    assert measurement.detail.endswith("copies"), measurement
    assert int(measurement.detail.split()[-2]) <= 3  # the needle itself, which the program holds


def test_a_killed_zygote_costs_one_evaluation_and_is_replaced(sandbox: Sandbox) -> None:
    os.kill(sandbox.zygote_pid, 9)
    outcomes = [sandbox.evaluate(GOOD).outcome, sandbox.evaluate(GOOD).outcome]
    assert outcomes[0] in (Outcome.SANDBOX_ERROR, Outcome.VALID)
    assert outcomes[1] is Outcome.VALID


def test_nothing_survives_a_killed_supervisor() -> None:
    code = """
    import sys
    from nas_ray.config import *
    from nas_ray.datasets import load_dataset
    from nas_ray.sandbox import Sandbox
    dataset, floor = load_dataset(DatasetConfig()), ContainmentConfig(floor="D")
    sandbox = Sandbox("cpu", dataset, ProtocolConfig(), BudgetConfig(), containment=floor, raise_walls=False)
    sandbox.wait_until_ready()
    print(sandbox.zygote_pid, "torch" in sys.modules, flush=True)
    sandbox.evaluate("import os, time\\nos.fork()\\nos.setpgid(0, 0)\\ntime.sleep(1000)")
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        zygote, torch_imported = process.stdout.readline().split()
        assert torch_imported == "False"
        family: set[int] = set()
        deadline = time.monotonic() + 20.0
        while len(family) < 2 and time.monotonic() < deadline:
            family = _descendants(int(zygote))
        assert len(family) == 2
        process.kill()
    assert all(wait_until_gone(pid) for pid in (int(zygote), *family))


def _descendants(pid: int) -> set[int]:
    found: set[int] = set()
    with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/task/{pid}/children") as file:
        for child in map(int, file.read().split()):
            found |= {child} | _descendants(child)
    return found


MESSAGES = st.one_of(
    st.builds(Entered, st.sampled_from(Step)),
    st.builds(
        Build,
        *[st.integers(0, 2**63 - 1)] * 3,
        st.binary(min_size=8, max_size=8).map(bytes.hex),
        st.sampled_from(["meta", "cpu"]),
        st.floats(0, 1e6),
        st.integers(0, 2**32 - 1),
    ),
    st.builds(
        Trained,
        st.floats(0, 1e6),
        st.integers(0, 2**63 - 1),
        st.lists(st.floats(0, 9), max_size=64).map(tuple),
        st.floats(0, 1e6),
    ),
    st.builds(Failed, st.sampled_from(CLAIMABLE), st.just("ValueError"), st.just("line 3: no")),
)


@given(MESSAGES)
def test_a_message_survives_its_packet(message: Message) -> None:
    assert decode(encode(message)) == message


@given(st.binary(max_size=1024))
def test_any_packet_is_a_message_or_malformed(packet: bytes) -> None:
    with suppress(MalformedMessage):
        decode(packet)


@given(MESSAGES, st.integers(0, 1023), st.integers(0, 255))
def test_a_damaged_packet_is_a_message_or_malformed(message: Message, place: int, value: int) -> None:
    packet = bytearray(encode(message))
    packet[place % len(packet)] = value
    with suppress(MalformedMessage):
        decode(bytes(packet))


@given(st.text())
def test_clean_text_holds_no_control_characters(text: str) -> None:
    assert all(character.isprintable() or character in "\n\t" for character in clean_text(text))
