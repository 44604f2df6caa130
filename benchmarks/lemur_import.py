"""How long LEMUR's programs and measurements take to import, and how long an index takes to be seeded with them.

    pip download --no-deps nn-dataset==2.1.2 && python -m zipfile -e nn_dataset-2.1.2-*.whl lemur
    python -m benchmarks.lemur_import --source lemur --out corpora/lemur

In: a LEMUR tree. Out: wall and processor seconds of the import, and of reading it back and seeding a novelty index, the
load of the machine, and the counts. The aim is 3 minutes of wall time for version 2.1.2 on 2 cores. Where others work
on the machine, processor seconds divided by cores say about what it would be.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from dataclasses import asdict
from pathlib import Path

from nas_ray.config import NoveltyConfig
from nas_ray.corpus import read_corpus
from nas_ray.lemur.importing import Choice, import_lemur
from nas_ray.lemur.tree import find_tree
from nas_ray.novelty import NoveltyIndex
from nas_ray.sketches import Sketcher


def processor_seconds() -> float:
    """Of this process and of those that it has waited for."""
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="LEMUR tree, or installed")
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    parser.add_argument("--programs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int)
    given = parser.parse_args()
    print(f"load average before the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    novelty = NoveltyConfig(corpus=str(given.out))
    sketcher = Sketcher(novelty.shingle_tokens, novelty.permutations)
    start = time.monotonic(), processor_seconds()
    counts = import_lemur(
        find_tree(given.source), given.out, Choice(given.programs, given.seed), sketcher, given.workers
    )
    report("import", *start)
    start = time.monotonic(), processor_seconds()
    sketches = read_corpus(novelty)
    report("read back", *start)
    start = time.monotonic(), processor_seconds()
    index = NoveltyIndex(novelty)
    index.seed(sketches)
    report(f"seed an index with {len(index):,} programs and networks", *start)
    print(f"load average at the end: {os.getloadavg()[0]:.1f}")
    size = sum(file.stat().st_size for file in given.out.iterdir()) / 2**20
    print(f"{size:.0f} MiB of tables; {asdict(counts)}")


def report(what: str, wall: float, processor: float) -> None:
    print(
        f"{what}: {time.monotonic() - wall:.1f} s, {processor_seconds() - processor:.1f} processor seconds", flush=True
    )


if __name__ == "__main__":
    main()
