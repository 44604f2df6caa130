"""Where a cycle's wall time goes, and the share of it in which nothing that counts is at work.

    python benchmarks/cycle.py [RUN]

In: a finished run, or none: then a search of 4 cycles of 32 candidates on digits with the seed model is run first. Out:
for each phase the median and range over the cycles, in seconds and as a share of the cycle. Phases overlap, as they are
meant to: generation, checking and evaluation go on at the same time, so their shares add up to more than one. The first
cycle is reported apart, because it holds the evaluators' start.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from nas_ray.schema import CycleRow
from nas_ray.store import Store, find_run

PHASES = ("generate", "check", "evaluate", "finetune", "waiting")


def search() -> str:
    """A fresh run of its own; returns its folder."""
    folder = tempfile.mkdtemp(prefix="nas-ray-benchmark-")
    settings = ("cycles=4", "candidates_per_cycle=32", f"folder={folder}")
    command = [sys.executable, "-m", "jobs.search", "--run", "cycle", *(f"--set={setting}" for setting in settings)]
    subprocess.run(command, check=True, stdout=sys.stderr, cwd=Path(__file__).parents[1])
    return f"{folder}/cycle"


def describe(cycles: list[CycleRow]) -> None:
    for phase in (*PHASES, "total"):
        seconds = [float(getattr(row, f"{phase}_seconds")) for row in cycles]
        shares = [spent / row.total_seconds for spent, row in zip(seconds, cycles, strict=True)]
        print(
            f"{phase:>9}  {median(seconds):7.2f} s  [{min(seconds):.2f}, {max(seconds):.2f}]"
            f"   {median(shares):6.1%}  [{min(shares):.1%}, {max(shares):.1%}]"
        )


def main() -> None:
    run = find_run(sys.argv[1]) if len(sys.argv) > 1 else search()
    first, *rest = Store.open(run).cycles()
    print(f"{run}\nfirst cycle, n = 1: median [least, most], then the share of the cycle")
    describe([first])
    if rest:
        print(f"later cycles, n = {len(rest)}")
        describe(rest)


if __name__ == "__main__":
    main()
