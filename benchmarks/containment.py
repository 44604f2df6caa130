"""What the walls around a candidate cost, and how soon a limit that is crossed ends it.

    python -m benchmarks.containment                          # all three parts, about 12 minutes on two cores
    python -m benchmarks.containment --parts cost reaction --rounds 20

Cost and speed compare, in one run and in rounds whose order is drawn anew: the sandbox with all the walls that this
machine can raise; the same sandbox with none (fork, watchdog and protocol only), twice, so that the second line of it
shows what the machine's noise alone makes; and, in some of the rounds, a cold process per candidate: a fresh Python
that imports torch, reads the same arrays from a file, trains by the same protocol and hands its logits back in a file,
with no limit of any kind.

    cost      a tiny network on 32 images: what is left is the price of a candidate, milliseconds from text to grade
    speed     a convolutional network on Fashion-MNIST: seconds of the training loop, as the child measured them
    reaction  programs that cross one limit each and note the time: milliseconds from there until `evaluate` has the
              child killed, reaped and its folder emptied

Ratios and differences are taken within a round. Medians, with quartiles in brackets; 95 % intervals of a median are
those of the sign test. Aims: at most 30 ms and 3 % more than without walls; each limit within 100 ms.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import binom

from nas_ray.candidate import Measurement
from nas_ray.config import BudgetConfig, ContainmentConfig, DatasetConfig, ProtocolConfig
from nas_ray.datasets import Dataset, load_dataset
from nas_ray.grading import grade
from nas_ray.outcome import Outcome
from nas_ray.sandbox import Sandbox
from nas_ray.threads import PASSIVE_THREADS

MOST_MILLISECONDS, MOST_RATIO, MOST_REACTION = 30.0, 1.03, 100.0
ALL, NONE, AGAIN, COLD = "all walls", "no walls", "no walls, again", "cold process"
NO_FLOOR = ContainmentConfig(floor="D")  # without which a sandbox refuses to run anything that is not contained
COLD_EVERY = 4  # rounds; it takes seconds

TINY = """
import torch.nn as nn


class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        self.head = nn.Linear(in_shape[1] * in_shape[2] * in_shape[3], out_shape[0])

    def forward(self, x):
        return self.head(x.flatten(1))
"""

CONVOLUTIONAL = """
import torch.nn as nn
import torch.nn.functional as F


class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        self.first = nn.Conv2d(in_shape[1], 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 32, 3, padding=1)
        self.head = nn.Linear(32, out_shape[0])

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.first(x))), 2)
        x = F.max_pool2d(F.relu(self.second(x)), 2)
        return self.head(x.mean((2, 3)))
"""

# The cold process. It imports what training needs and no more, and prints the seconds of training.
COLD_PROGRAM = """
import sys
from pathlib import Path

import numpy as np
import torch

from nas_ray.build import load_net
from nas_ray.config import ProtocolConfig
from nas_ray.training import TrainingData, hyperparameters, train_and_predict

torch.set_num_threads(1)
folder, classes = Path(sys.argv[1]), int(sys.argv[2])
mean, std = (tuple(float(number) for number in text.split(",")) for text in sys.argv[3:])
protocol = ProtocolConfig.model_validate_json((folder / "protocol.json").read_text())
arrays = np.load(folder / "data.npz")
data = TrainingData(torch.tensor(arrays["images"]), torch.tensor(arrays["labels"]), classes, mean, std)
net, images = load_net((folder / "program.py").read_text()), torch.tensor(arrays["validation"])
prediction = train_and_predict(net, data, images, protocol, "cpu", hyperparameters(protocol))
np.save(folder / "logits.npy", prediction.logits)
print(prediction.train_seconds)
"""

Seconds = tuple[float, float]  # from text to grade, of training
Way = Callable[[str], Seconds]
Turns = dict[str, dict[int, Seconds]]  # way -> round -> seconds


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the median by order statistics (the sign test's), whatever the distribution."""
    ordered = sorted(values)
    rank = int(binom.ppf(0.025, len(ordered), 0.5))
    return ordered[max(rank - 1, 0)], ordered[min(len(ordered) - rank, len(ordered) - 1)]


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def with_interval(values: Sequence[float], digits: int) -> str:
    """Median and its 95 % interval."""
    low, high = median_interval(values)
    return f"{statistics.median(values):.{digits}f} (95 %: {low:.{digits}f} to {high:.{digits}f})"


def check(measurement: Measurement, outcome: Outcome = Outcome.VALID) -> Measurement:
    if measurement.outcome is not outcome:
        raise RuntimeError(f"expected {outcome}: {measurement}")
    return measurement


def through(sandbox: Sandbox) -> Way:
    """A candidate through a warm sandbox."""

    def run(code: str) -> Seconds:
        start = time.perf_counter()
        measurement = check(sandbox.evaluate(code))
        return time.perf_counter() - start, measurement.train_seconds or 0.0

    return run


def cold(dataset: Dataset, protocol: ProtocolConfig, folder: Path) -> Way:
    """A candidate in a fresh process of its own, which reads what it needs from `folder`."""
    np.savez(
        folder / "data.npz",
        images=dataset.train_images,
        labels=dataset.train_labels,
        validation=dataset.validation_images,
    )
    (folder / "protocol.json").write_text(protocol.model_dump_json())
    constants = [str(dataset.classes), ",".join(map(str, dataset.mean)), ",".join(map(str, dataset.std))]
    command = [sys.executable, "-c", COLD_PROGRAM, str(folder), *constants]

    def run(code: str) -> Seconds:
        start = time.perf_counter()
        (folder / "program.py").write_text(code)
        done = subprocess.run(
            command, env={**os.environ, **PASSIVE_THREADS}, check=True, stdout=subprocess.PIPE, text=True
        )
        grade(np.load(folder / "logits.npy"), dataset.validation_labels)
        return time.perf_counter() - start, float(done.stdout)

    return run


def take_turns(ways: dict[str, Way], code: str, rounds: int) -> Turns:
    """Runs `code` in every way in every round (the cold process in some), the order drawn anew."""
    rng, names = random.Random(0), list(ways)
    for way in ways.values():
        way(code)  # not counted: the first of a kind
    found: Turns = {name: {} for name in names}
    for turn in range(rounds):
        for name in rng.sample(names, len(names)):
            if name != COLD or turn % COLD_EVERY == 0:
                found[name][turn] = ways[name](code)
    return found


def pairs(found: Turns, one: str, other: str, part: int) -> list[tuple[float, float]]:
    """(one, other) of every round that has both."""
    return [(found[one][turn][part], found[other][turn][part]) for turn in found[one] if turn in found[other]]


def compare(dataset: Dataset, code: str, rounds: int) -> Turns:
    protocol, budget = ProtocolConfig(), BudgetConfig(train_seconds=300.0)
    with (
        Sandbox("cpu", dataset, protocol, budget) as walled,
        Sandbox("cpu", dataset, protocol, budget, containment=NO_FLOOR, raise_walls=False) as bare,
        Sandbox("cpu", dataset, protocol, budget, containment=NO_FLOOR, raise_walls=False) as again,
        tempfile.TemporaryDirectory() as folder,
    ):
        walled.wait_until_ready()
        print(f"{ALL}: {walled.walls.describe()}")
        ways = {
            ALL: through(walled),
            NONE: through(bare),
            AGAIN: through(again),
            COLD: cold(dataset, protocol, Path(folder)),
        }
        return take_turns(ways, code, rounds)


def measure_cost(rounds: int) -> None:
    dataset = load_dataset(DatasetConfig(train_limit=32, validation_limit=16))
    found = compare(dataset, TINY, rounds)
    print("\ncost of a candidate (tiny network, 32 images of digits), ms from text to grade")
    for name, turns in found.items():
        values = [1000 * seconds for seconds, _ in turns.values()]
        print(f"  {name:<16} {spread(values)}, n = {len(values)}")
    for name, aim in ((ALL, f"; aim: at most {MOST_MILLISECONDS:.0f}"), (AGAIN, "; noise"), (COLD, "")):
        more = [1000 * (one - other) for one, other in pairs(found, name, NONE, 0)]
        print(f"  {name} less {NONE}: {with_interval(more, 2)} ms, n = {len(more)}{aim}")
    ratios = [other / one for one, other in pairs(found, ALL, COLD, 0)]
    print(f"  {COLD} / {ALL}: {with_interval(ratios, 0)}, n = {len(ratios)}")


def measure_speed(rounds: int, images: int) -> None:
    dataset = load_dataset(DatasetConfig(name="fashion-mnist", train_limit=images, validation_limit=500))
    found = compare(dataset, CONVOLUTIONAL, rounds)
    print(f"\nspeed of training (convolutional network, {images} images of Fashion-MNIST, one epoch, one thread)")
    for name, turns in found.items():
        seconds = [training for _, training in turns.values()]
        whole = [all_of_it for all_of_it, _ in turns.values()]
        rate = images / statistics.median(seconds)
        line = f"{spread(seconds, 2)} s, {rate:,.0f} images/s; text to grade {spread(whole, 2)} s, n = {len(seconds)}"
        print(f"  {name:<16} {line}")
    for name, aim in ((ALL, f"; aim: at most {MOST_RATIO}"), (AGAIN, "; noise"), (COLD, "")):
        ratios = [one / other for one, other in pairs(found, name, NONE, 1)]
        print(f"  training seconds, {name} / {NONE}: {with_interval(ratios, 3)}, n = {len(ratios)}{aim}")
    ratios = [one / other for one, other in pairs(found, COLD, ALL, 0)]
    print(f"  text to grade, {COLD} / {ALL}: {with_interval(ratios, 2)}, n = {len(ratios)}")


# Each prints "count seconds" before every step towards its limit, with the count that the step leads to: the limit is
# crossed a little after the note, so that the times found are a little too long.
NOTE = "import sys, time\ndef note(count):\n    print(count, time.monotonic(), flush=True)\n"
MEMORY = """
held = []
while True:
    note((len(held) + 1) << 22)
    held.append(b"1" * (1 << 22))
"""
SCRATCH_BYTES = """
written = 0
while True:
    written += 1 << 20
    note(written)
    with open(f"part{written}", "wb") as file:
        file.write(bytes(1 << 20))
"""
SCRATCH_FILES = """
made = 0
while True:
    made += 1
    note(made)
    open(f"file{made}", "wb").close()
"""
THREADS = """
import threading
started = 0
while True:
    started += 1
    note(started)
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
"""
PRINTED = """
left = {limit} - 1024
while left > 0:
    left -= sys.stdout.write("x" * min(left, 1 << 16))
sys.stdout.write("\\n")
note({limit} + 1)
print("x" * 8192, flush=True)
time.sleep(60)
"""


def crossed_at(output: str, limit: float) -> float:
    """When the step to the first count above `limit` was noted; the last step, where that came a bit earlier."""
    last = ""
    for line in output.splitlines(keepends=True):
        words = line.split()
        if line.endswith("\n") and len(words) == 2 and words[0].isdigit():
            last = words[1]
            if int(words[0]) > limit:
                break
    return float(last)


def react(sandbox: Sandbox, code: str, limit: float, outcome: Outcome, times: int) -> list[float]:
    """Milliseconds from the crossing of a limit until `evaluate` returned."""
    found = []
    for _ in range(times):
        measurement = check(sandbox.evaluate(NOTE + code), outcome)
        found.append(1000 * (time.monotonic() - crossed_at(measurement.output, limit)))
    return found


def measure_reaction(times: int) -> None:
    dataset = load_dataset(DatasetConfig(train_limit=32, validation_limit=16))
    limits = ContainmentConfig(scratch_mib=64, scratch_files=1000, output_mib=16, threads=64)
    protocol, budget = ProtocolConfig(), BudgetConfig(train_seconds=60.0, memory_gib=1.0)
    found: dict[str, list[float]] = {}
    impatient = budget.model_copy(update={"train_seconds": 0.5})
    with Sandbox("cpu", dataset, protocol, impatient, containment=limits) as sandbox:
        sandbox.wait_until_ready()
        late = []
        for _ in range(times):
            start = time.monotonic()
            check(sandbox.evaluate("while True: pass"), Outcome.TIMEOUT)
            late.append(1000 * (time.monotonic() - start - impatient.train_seconds))
        found["wall time (with the start of the child)"] = late
    with Sandbox("cpu", dataset, protocol, budget, containment=limits) as sandbox:
        empty = check(sandbox.evaluate("held = []"), Outcome.CONTRACT_ERROR)
        room = budget.memory_gib * (1 << 30) - (empty.peak_memory_bytes or 0)
        printed = PRINTED.format(limit=limits.output_mib << 20)
        exceeded, scratch = Outcome.LIMIT_EXCEEDED, limits.scratch_mib << 20
        found["memory"] = react(sandbox, MEMORY, room, Outcome.OUT_OF_MEMORY, times)
        found["scratch, bytes"] = react(sandbox, SCRATCH_BYTES, scratch, exceeded, times)
        found["scratch, files"] = react(sandbox, SCRATCH_FILES, limits.scratch_files, exceeded, times)
        found["threads"] = react(sandbox, THREADS, limits.threads, exceeded, times)
        found["printed bytes"] = react(sandbox, printed, limits.output_mib << 20, exceeded, times)
    print(f"\nfrom a limit to reaped, ms; aim: at most {MOST_REACTION:.0f}")
    for name, values in found.items():
        over = sum(value > MOST_REACTION for value in values)
        print(f"  {name:<40} {spread(values)}, most {max(values):.1f}, n = {len(values)}, over the aim: {over}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("cost", "speed", "reaction")
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--rounds", type=int, default=60, help="of the cost part")
    parser.add_argument("--speed-rounds", type=int, default=120)
    parser.add_argument("--images", type=int, default=2000, help="that the speed part trains on")
    parser.add_argument("--times", type=int, default=20, help="that each limit is crossed")
    given = parser.parse_args()
    print(f"load average before the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if "cost" in given.parts:
        measure_cost(given.rounds)
    if "speed" in given.parts:
        measure_speed(given.speed_rounds, given.images)
    if "reaction" in given.parts:
        measure_reaction(given.times)


if __name__ == "__main__":
    main()
