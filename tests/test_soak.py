"""A long run of programs of every kind through the real evaluators: each gets its word, and nothing is left behind.

    pytest -m slow tests/test_soak.py -s                   # 2,000 programs, 3 minutes on two cores
    NAS_RAY_SOAK=100 pytest -m slow tests/test_soak.py -s  # fewer

It prints what docs/containment.md shows. Measured between waves, when nothing runs: the evaluators' descriptors,
sockets and private memory, their zygotes' memory, scratch folders, processes and shared memory.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from candidate_programs import GOOD, write_program
from hostile_acts import ESCAPED, LEFTOVER
from hostile_programs import HostileProgram, hostile_programs

from actors.trial_pool import TrialPool
from nas_ray.candidate import Measurement, Trial
from nas_ray.config import BudgetConfig, ContainmentConfig, DatasetConfig, ResourceConfig, RunConfig
from nas_ray.datasets import load_dataset
from nas_ray.grammar import sample_program
from nas_ray.outcome import Outcome

PROGRAMS = int(os.environ.get("NAS_RAY_SOAK", "2000"))
VALID_SHARE, BROKEN_SHARE = 0.3, 0.15  # the rest is hostile
WAVE = 200  # programs between two measurements
EVALUATORS = 2
GROWTH = 24 << 20  # bytes of private memory that a process may gain over the run

CONFIG = RunConfig(
    dataset=DatasetConfig(train_limit=64, validation_limit=200),
    budget=BudgetConfig(parameters=10_000_000, train_seconds=5.0, memory_gib=0.75),
    containment=ContainmentConfig(scratch_mib=64, scratch_files=1000, output_mib=16),
    resources=ResourceConfig(evaluators=EVALUATORS),
)
REVEALING = "import os, time\nprint(os.getppid(), os.getuid())\ntime.sleep(1)\nraise ValueError('seen')"

LEARNS = frozenset({Outcome.VALID, Outcome.DIVERGED})
FAILS = frozenset({Outcome.BUILD_ERROR, Outcome.TRAIN_ERROR})
INVALID = frozenset({Outcome.INVALID_OUTPUT})
BROKEN: dict[str, tuple[str, frozenset[Outcome]]] = {
    "no class": ("x = 3", frozenset({Outcome.CONTRACT_ERROR})),
    "no module": ("class Net:\n    pass", frozenset({Outcome.CONTRACT_ERROR})),
    "other signature": (GOOD.replace("in_shape, out_shape, prm, device", "classes"), FAILS),
    "no forward": (GOOD.replace("forward", "backward"), FAILS),
    "nothing to learn": (write_program("pass", "return torch.zeros(len(x), 10)"), FAILS),
    "syntax": (GOOD.replace("):", ")", 1), FAILS),
    "missing module": ("import no_such_module\n" + GOOD, FAILS),
    "missing name": (GOOD.replace("F.relu(self", "F.rlu(self"), FAILS),
    "wrong shape inside": (GOOD.replace("return self", "return x + self"), FAILS),
    "maps for logits": (GOOD.replace("return self.head(x.flatten(1))", "return x"), INVALID),
}


@dataclass(frozen=True, slots=True)
class Level:
    """What one evaluator and its zygote hold, when nothing runs."""

    descriptors: int
    sockets: int
    memory: int  # private bytes of the evaluator
    zygote_descriptors: int
    zygote_memory: int


@dataclass(frozen=True, slots=True)
class Slot:
    """An evaluator, its zygote, and the user that its candidates run as."""

    evaluator: int
    zygote: int
    uid: int

    def measure(self) -> Level:
        handles = [self._read_link(handle) for handle in Path(f"/proc/{self.evaluator}/fd").iterdir()]
        return Level(
            descriptors=len(handles),
            sockets=sum(handle.startswith("socket:") for handle in handles),
            memory=private_bytes(self.evaluator),
            zygote_descriptors=len(os.listdir(f"/proc/{self.zygote}/fd")),
            zygote_memory=private_bytes(self.zygote),
        )

    @staticmethod
    def _read_link(handle: Path) -> str:
        with suppress(FileNotFoundError):  # a connection of Ray's that came and went
            return os.readlink(handle)
        return ""

    def leftovers(self) -> list[str]:
        """Whatever a candidate of this slot left: processes, files in its folder."""
        found = [f"process {pid} below the zygote" for pid in children(self.zygote)]
        found += [f"process {pid} below the evaluator" for pid in children(self.evaluator) if pid != self.zygote]
        if self.uid != os.getuid():
            found += [f"process {pid} of user {self.uid}" for pid in processes_of(self.uid)]
        found += [f"file {name} in the scratch folder" for name in os.listdir(f"/proc/{self.zygote}/cwd")]
        return found


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def private_bytes(pid: int) -> int:
    return int(status_of(pid)["RssAnon"].split()[0]) << 10


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found += [int(child) for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split()]
    return found


def processes_of(uid: int) -> list[int]:
    """Every process of that user."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(FileNotFoundError, ProcessLookupError):
            if int(status_of(int(name))["Uid"].split()[0]) == uid:
                found.append(int(name))
    return found


def left_outside() -> list[str]:
    """What no candidate may leave anywhere on the machine."""
    places = [Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"), Path("/root")]
    found = [str(file) for place in places if os.access(place, os.R_OK) for file in place.glob(f"{LEFTOVER}*")]
    for kind in ("shm", "msg", "sem"):
        lines = Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]
        found += [f"{kind} {line.split()[0]}" for line in lines if int(line.split()[0]) == 0x6E72]
    if f"@{LEFTOVER}" in Path("/proc/net/unix").read_text():
        found.append("an abstract socket")
    return found


def draw_programs(count: int) -> list[HostileProgram]:
    """`count` programs of all three kinds in a random, fixed order."""
    rng = random.Random(0)
    valid, broken = round(VALID_SHARE * count), round(BROKEN_SHARE * count)
    programs = []
    for number in range(valid):
        code = sample_program(rng, (1, 8, 8), 10, CONFIG.budget.parameters, mistakes=0)
        programs.append(HostileProgram(f"grammar {number}", "valid", code, LEARNS))
    for number in range(broken):
        if number % 2:
            name = list(BROKEN)[number // 2 % len(BROKEN)]
            programs.append(HostileProgram(name, "broken by hand", *BROKEN[name]))
        else:
            code = sample_program(rng, (1, 8, 8), 10, CONFIG.budget.parameters, mistakes=1)
            programs.append(HostileProgram(f"spoiled {number}", "spoiled", code, LEARNS | FAILS))
    hostile = hostile_programs()
    wanted = count - valid - broken
    while len(hostile) < wanted:
        hostile *= 2
    programs += rng.sample(hostile, wanted)
    rng.shuffle(programs)
    return programs


def run_wave(pool: TrialPool, programs: list[tuple[int, str]]) -> dict[int, Measurement]:
    """Measures programs under their numbers; fails if one comes twice, or not at all."""
    for number, code in programs:
        pool.submit((0, number), Trial(code, CONFIG.dataset.name, CONFIG.protocol.seed, (1,)))
    found: dict[int, Measurement] = {}
    deadline = time.monotonic() + 60 + 10 * len(programs)
    while len(found) < len(programs) and time.monotonic() < deadline:
        for (_, number), measurement in pool.results(timeout=1.0):
            assert number not in found, f"two results for program {number}"
            found[number] = measurement
    assert set(found) == {number for number, _ in programs}
    return found


def find_slots(pool: TrialPool) -> list[Slot]:
    """The evaluators that are warm now, by what a program sees of them."""
    slots = set()
    for measurement in run_wave(pool, [(-number, REVEALING) for number in range(1, 3 * EVALUATORS + 1)]).values():
        zygote, uid = (int(word) for word in measurement.output.split())
        slots.add(Slot(int(status_of(zygote)["PPid"]), zygote, uid))
    return sorted(slots, key=lambda slot: slot.zygote)


@pytest.fixture
def pool(ray_session: None) -> Iterator[TrialPool]:
    pool = TrialPool(CONFIG, {CONFIG.dataset.name: load_dataset(CONFIG.dataset)})
    yield pool
    pool.close()


def mistakes_of(program: HostileProgram, measurement: Measurement) -> Iterator[str]:
    found = f"{program.kind}, {program.name}: {measurement.outcome}, {measurement.error_type} {measurement.detail}"
    if measurement.outcome not in program.outcomes:
        yield f"{found}; allowed: {', '.join(sorted(program.outcomes))}"
    if ESCAPED in measurement.output:
        yield f"{found}; it escaped"
    if (measurement.accuracy or 0.0) > program.most_accurate:
        yield f"{found}; its accuracy is {measurement.accuracy}"


def print_counts(programs: list[HostileProgram], results: dict[int, Measurement]) -> None:
    """Programs by kind: how many, how they ended, how long they took."""
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    seconds: dict[str, float] = defaultdict(float)
    for number, program in enumerate(programs):
        outcomes[program.kind][results[number].outcome] += 1
        seconds[program.kind] += results[number].seconds
    print("\n| kind | programs | outcomes | seconds a program |\n|---|---|---|---|")
    for kind, counts in sorted(outcomes.items()):
        words = ", ".join(f"{count} `{outcome}`" for outcome, count in counts.most_common())
        print(f"| {kind} | {counts.total()} | {words} | {seconds[kind] / counts.total():.2f} |")


def print_levels(levels: dict[int, dict[Slot, Level]]) -> None:
    """What the evaluators held after so many programs, summed over them."""
    print("\n| after | descriptors | of them sockets | evaluators' MiB | zygotes' descriptors | zygotes' MiB |")
    print("|---|---|---|---|---|---|")
    for count, found in levels.items():
        each = found.values()
        cells = [
            f"{sum(level.descriptors for level in each)}",
            f"{sum(level.sockets for level in each)}",
            f"{sum(level.memory for level in each) / 2**20:.1f}",
            f"{sum(level.zygote_descriptors for level in each)}",
            f"{sum(level.zygote_memory for level in each) / 2**20:.1f}",
        ]
        print(f"| {count} | " + " | ".join(cells) + " |")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_thousands_of_programs_leave_nothing_behind(pool: TrialPool) -> None:
    programs = draw_programs(PROGRAMS)
    slots = find_slots(pool)
    assert len(slots) == EVALUATORS
    start = time.monotonic()
    results: dict[int, Measurement] = {}
    levels: dict[int, dict[Slot, Level]] = {}
    for first in range(0, len(programs), WAVE):
        numbers = range(first, min(first + WAVE, len(programs)))
        results |= run_wave(pool, [(number, programs[number].code) for number in numbers])
        levels[len(results)] = {slot: slot.measure() for slot in slots}
        assert [line for slot in slots for line in slot.leftovers()] == []
        assert left_outside() == []
    wall = time.monotonic() - start
    tiers = Counter(measurement.tier for measurement in results.values())
    print(f"\n{len(programs)} programs, {EVALUATORS} evaluators, {wall / 60:.1f} min; tiers {dict(tiers)}")
    print_counts(programs, results)
    print_levels(levels)

    wrong = [line for number, program in enumerate(programs) for line in mistakes_of(program, results[number])]
    assert wrong == [], "\n".join(wrong)
    assert len(results) == len(programs)
    assert pool.in_flight == 0
    assert find_slots(pool) == slots, "an evaluator or a zygote was replaced"
    before, after = levels[min(levels)], levels[max(levels)]
    for slot in slots:
        assert after[slot].descriptors <= before[slot].descriptors + 4, "descriptors grow"
        assert after[slot].sockets <= before[slot].sockets + 4, "sockets grow"
        assert after[slot].zygote_descriptors <= before[slot].zygote_descriptors, "the zygote's descriptors grow"
        assert after[slot].memory <= before[slot].memory + GROWTH, "the evaluator's memory grows"
        assert after[slot].zygote_memory <= before[slot].zygote_memory + GROWTH, "the zygote's memory grows"
