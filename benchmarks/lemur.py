"""Programs that were not written for this engine: how those of LEMUR end here, and whether anything of the engine does.

    pip download --no-deps nn-dataset==2.1.2 && python -m zipfile -e nn_dataset-2.1.2-*.whl lemur
    python -m benchmarks.lemur --programs lemur/ab/nn/nn
    python -m benchmarks.lemur --programs lemur/ab/nn/nn --count 200 --protocol candidate

In: a folder of LEMUR's programs, one a file, named `prefix-hash.py` by the generator that wrote them. Out: tables of
outcomes by prefix and of the most frequent reasons, the time it took, and how often the sandbox had to be started
again, which must be never. Each program goes the way of a candidate: parsed, checked against the contract, built,
trained on a few images for one epoch and graded, as far as the limits let it.

Prefixes get equal shares, drawn by a seed; what a prefix cannot fill goes to the others. Those with fewer than 50
programs, the classics written by hand among them, count as one, "others".
"""

from __future__ import annotations

import argparse
import os
import random
import re
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from nas_ray.config import BudgetConfig, ContainmentConfig, DatasetConfig, ProtocolConfig
from nas_ray.datasets import load_dataset
from nas_ray.judgement import Judgement, judge_program
from nas_ray.outcome import Outcome
from nas_ray.program import read_program
from nas_ray.sandbox import Sandbox

RARE = 50  # programs; a prefix with fewer is one of the others
REASONS = 20  # lines of the second table


def draw_files(folder: Path, count: int, seed: int) -> list[tuple[str, Path]]:
    """(prefix, file) of `count` programs in random order, the prefixes in equal shares as far as they have as many."""
    files: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(folder.glob("*.py")):
        if not file.name.startswith("__"):
            files[file.stem.partition("-")[0]].append(file)
    for prefix in [prefix for prefix, found in files.items() if len(found) < RARE]:
        files["others"] += files.pop(prefix)
    rng, drawn = random.Random(seed), list[tuple[str, Path]]()
    waiting = sorted(files, key=lambda prefix: len(files[prefix]))
    for place, prefix in enumerate(waiting):  # the smallest first: what they lack, the larger ones give
        share = round((count - len(drawn)) / (len(waiting) - place))
        chosen = rng.sample(files[prefix], min(share, len(files[prefix])))
        drawn += [(prefix, file) for file in chosen]
    rng.shuffle(drawn)
    return drawn


def reason_of(judgement: Judgement) -> str:
    """Why a program did not become valid, without what differs from one program to the next."""
    text = re.sub(r"^line \d+: ", "", judgement.detail)
    text = re.sub(r"\d[\d,.]*", "N", text)
    kind = f"{judgement.error_type}: " if judgement.error_type else ""
    return f"{judgement.outcome}, {kind}{text[:90]}"


def print_outcomes(judged: Sequence[tuple[str, Judgement]]) -> None:
    counts: dict[str, Counter[Outcome]] = defaultdict(Counter)
    for prefix, judgement in judged:
        counts[prefix][judgement.outcome] += 1
    total = sum(counts.values(), Counter[Outcome]())
    columns = [outcome for outcome, _ in total.most_common()]
    print("| prefix | programs | " + " | ".join(f"`{outcome}`" for outcome in columns) + " |")
    print("|---" * (len(columns) + 2) + "|")
    for prefix, found in [*sorted(counts.items()), ("all", total)]:
        cells = [str(found[outcome] or "") for outcome in columns]
        print(f"| {prefix} | {found.total()} | " + " | ".join(cells) + " |")


def print_reasons(judged: Sequence[tuple[str, Judgement]]) -> None:
    reasons = Counter(reason_of(judgement) for _, judgement in judged if judgement.outcome is not Outcome.VALID)
    print(f"\nthe {REASONS} most frequent of {len(reasons)} reasons")
    for reason, count in reasons.most_common(REASONS):
        print(f"  {count:>4}  {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, required=True, help="folder of .py files")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dataset", default="fashion-mnist")
    parser.add_argument("--resolution", type=int, default=32, help="pixels; many of the programs pool five times")
    parser.add_argument("--images", type=int, default=64, help="to train on, and as many to grade on")
    parser.add_argument("--protocol", choices=("fixed", "candidate"), default="fixed", help="who trains")
    parser.add_argument("--train-seconds", type=float, default=5.0)
    given = parser.parse_args()
    protocol = ProtocolConfig(kind=given.protocol, resolution=given.resolution)
    budget = BudgetConfig(
        parameters=50_000_000, flops=1e10, memory_gib=4.0, build_seconds=8.0, train_seconds=given.train_seconds
    )
    images = DatasetConfig(name=given.dataset, train_limit=given.images, validation_limit=given.images)
    dataset = load_dataset(images, given.resolution)
    files = draw_files(given.programs, given.count, given.seed)
    judged: list[tuple[str, Judgement]] = []
    restarts = 0
    print(f"load average before the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    start = time.monotonic()
    with Sandbox("cpu", dataset, protocol, budget, containment=ContainmentConfig()) as sandbox:
        sandbox.wait_until_ready()
        zygote = sandbox.zygote_pid
        print(f"{sandbox.walls.describe()}; protocol: {given.protocol}\n")
        for prefix, file in files:
            program = read_program(file.read_text(encoding="utf-8", errors="replace"))
            judgement = judge_program(program, sandbox, dataset)
            judged.append((prefix, judgement))
            sandbox.wait_until_ready()
            if judgement.outcome.is_engine_fault or sandbox.zygote_pid != zygote:
                restarts += sandbox.zygote_pid != zygote
                zygote = sandbox.zygote_pid
                print(f"the engine's fault: {file.name}: {judgement.outcome} {judgement.detail}", flush=True)
    minutes = (time.monotonic() - start) / 60
    print_outcomes(judged)
    print_reasons(judged)
    seconds = [judgement.seconds for _, judgement in judged]
    low, middle, high = statistics.quantiles(seconds, n=4)
    print(f"\n{len(judged)} programs, {minutes:.1f} min; seconds each {middle:.2f} [{low:.2f}, {high:.2f}]")
    print(f"the sandbox was started again {restarts} times")


if __name__ == "__main__":
    main()
