"""Admissions a second, bytes an entry, recall and precision of the novelty index, by the number of entries.

    python -m benchmarks.novelty                         # 1,000, 10,000 and 100,000 entries
    python -m benchmarks.novelty --sizes 1000 --queries 100

Programs are those of the project's grammar with 4 to 40 tokens changed (numbers for numbers, names for names), so that
every program has relatives at all distances. At each size, in a process of its own:

- speed: the last 1,000 admissions, in five windows;
- memory: resident set after minus before, per entry, and the part of it that the shingles alone take;
- recall and precision at tau: relatives of admitted programs, 1 to 6 neighbouring tokens changed (which takes most of
  them to similarities between 0.88 and 0.94), are put to the index and to a search through all entries by exact Jaccard
  similarity. Recall is the share of true near-duplicates that were refused,
  precision the share of refused programs that are true near-duplicates. Intervals are Wilson's, 95 %.

Beside them stand datasketch's own MinHashLSH with the same bands and signatures (speed of query and insert alone, and
memory), and the usual equal-area bands at 0.85 (recall).
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import multiprocessing
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasketch import MinHash, MinHashLSH

from nas_ray.bands import BandTable
from nas_ray.candidate import Program
from nas_ray.config import NoveltyConfig
from nas_ray.grammar import sample_document
from nas_ray.interval import wilson
from nas_ray.novelty import NoveltyIndex, Record
from nas_ray.program import parse_completion
from nas_ray.shingles import Shingles, jaccard_counts, shingle

BASES = 500
WINDOWS, WINDOW = 5, 200
USUAL = (13, 19)  # bands x rows of the equal-area rule at 0.85 with 256 permutations


@dataclass(frozen=True)
class Result:
    """What was measured at one size."""

    entries: int
    speeds: list[float]  # admissions a second, one for each window
    entry_bytes: float
    shingle_bytes: float
    looked_at: float  # mean number of entries that a query was compared with
    refused: int
    near: int  # queries that have a true near-duplicate
    both: int
    near_and_usual: int  # true near-duplicates that the usual bands would have looked at


def resident_bytes() -> int:
    """Resident set of this process (Linux)."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def sample_bases() -> list[list[str]]:
    """Normalised tokens of programs of the grammar."""
    rng = random.Random(0)
    bases: list[list[str]] = []
    while len(bases) < BASES:
        parsed = parse_completion(sample_document(rng, mistakes=0.0)[1])
        if isinstance(parsed, Program):
            bases.append(parsed.normalised.split())
    return bases


def vary(words: Sequence[str], places: Sequence[int], rng: random.Random) -> list[str]:
    """The same program with the tokens at some places changed."""
    varied = list(words)
    for place in places:
        varied[place] = (
            str(rng.randrange(1, 200)) if varied[place].isdigit() else f"{varied[place]}{rng.randrange(100)}"
        )
    return varied


def relatives(bases: Sequence[Sequence[str]], seed: int) -> Iterator[Program]:
    """An endless stream of programs, the same for the same seed."""
    rng = random.Random(seed)
    while True:
        base = rng.choice(bases)
        yield as_program(vary(base, rng.choices(range(len(base)), k=rng.randrange(4, 41)), rng))


def as_program(words: Sequence[str]) -> Program:
    text = " ".join(words)
    return Program(id=hashlib.sha256(text.encode()).hexdigest()[:16], code="", normalised=text, dropped=())


def measure(size: int, queries: int) -> Result:
    """Fill an index with `size` entries and put queries to it."""
    config = NoveltyConfig()
    stream = relatives(sample_bases(), seed=1)
    before = resident_bytes()
    index = NoveltyIndex(config)
    speeds: list[float] = []
    rng = random.Random(2)
    sources: list[Program] = []  # a sample of the entries, to make queries of
    while len(index) < size:
        if len(index) < size - WINDOWS * WINDOW:
            program = next(stream)
            index.restore([Record(program.id, program.normalised)])
            window = [program]
        else:
            window = [next(stream) for _ in range(min(WINDOW, size - len(index)))]
            started = time.perf_counter()
            for program in window:
                index.admit_code(program)
            speeds.append(len(window) / (time.perf_counter() - started))
        sources += (program for program in window if rng.random() < 2 * queries / size)
    entry_bytes = (resident_bytes() - before) / len(index)
    shingle_bytes = sum(array.nbytes for array in index._shingles) / len(index)

    rng.shuffle(sources)
    usual = BandTable(*USUAL)
    table, places, counts = index._bands, np.concatenate(index._shingles), [len(array) for array in index._shingles]
    assert table is not None
    starts, lengths = np.cumsum([0, *counts[:-1]]), np.array(counts)
    refused = near = both = near_and_usual = looked_at = 0
    for source in sources[:queries]:
        words = source.normalised.split()
        place = rng.randrange(len(words) - 6)
        query = as_program(vary(words, range(place, place + rng.randrange(1, 7)), rng))
        shingles = shingle(query.normalised, config.shingle_tokens)
        truth = find_near(index._shingles, shingles, places, starts, lengths)
        signature = index._sign(shingles)
        looked_at += len(table.find(table.keys(signature)))
        verdict = index.admit_code(query)
        if verdict.novel:
            index.withdraw(query.id)
        usual_keys = set(usual.keys(signature))
        found_usually = any(usual_keys & set(usual.keys(index._sign(index._shingles[entry]))) for entry in truth)
        refused += not verdict.novel
        near += bool(truth)
        both += bool(truth) and not verdict.novel
        near_and_usual += bool(truth) and found_usually
    return Result(size, speeds, entry_bytes, shingle_bytes, looked_at / queries, refused, near, both, near_and_usual)


def find_near(
    entries: Sequence[Shingles], shingles: Shingles, places: np.ndarray, starts: np.ndarray, lengths: np.ndarray
) -> list[int]:
    """All entries at or above tau = 9/10, by exact similarity.

    A table over 24 bits of the hashes gives an upper limit of every intersection; whatever might reach tau is compared
    in full.
    """
    table = np.zeros(1 << 24, dtype=np.bool_)
    table[shingles >> np.uint32(8)] = True
    shared = np.minimum(np.add.reduceat(table[places >> np.uint32(8)], starts, dtype=np.int64), len(shingles))
    possible = np.flatnonzero(10 * shared >= 9 * (lengths + len(shingles) - shared))
    counts = ((int(entry), *jaccard_counts(shingles, entries[entry])) for entry in possible)
    return [entry for entry, common, union in counts if 10 * common >= 9 * union]


def measure_datasketch(size: int) -> tuple[list[float], float]:
    """Query-and-insert a second of the last windows, and bytes an entry, of MinHashLSH with the same bands."""
    config = NoveltyConfig()
    stream = relatives(sample_bases(), seed=1)
    index = NoveltyIndex(config)
    table = index._bands
    assert table is not None
    permutations = MinHash(config.permutations).permutations
    before = resident_bytes()
    other = MinHashLSH(num_perm=config.permutations, params=(table.bands, table.rows))
    speeds: list[float] = []
    for start in range(0, size, WINDOW):
        numbers = range(start, min(start + WINDOW, size))
        texts = [next(stream).normalised for _ in numbers]
        signatures = [index._sign(shingle(text, config.shingle_tokens)) for text in texts]
        started = time.perf_counter()
        for number, signature in zip(numbers, signatures, strict=True):
            sketch = MinHash(hashvalues=signature, permutations=permutations, scheme="affine32")
            if start + WINDOWS * WINDOW >= size:
                other.query(sketch)
            other.insert(number, sketch)
        speeds.append(len(numbers) / (time.perf_counter() - started))
    return speeds[-WINDOWS:], (resident_bytes() - before) / size


def share(count: int, total: int) -> str:
    """A share with its 95 % interval."""
    interval = wilson(count, total)
    if interval is None:
        return "none"
    return f"{interval.estimate:.4f} [{interval.low:.4f}, {interval.high:.4f}] of {total}"


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):,.0f}/s ({min(values):,.0f} to {max(values):,.0f}, n={len(values)} windows)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--queries", type=int, default=500, help="at each size")
    options = parser.parse_args()
    for size in options.sizes:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as process:
            result = process.submit(measure, size, options.queries).result()
            speeds, entry_bytes = process.submit(measure_datasketch, size).result()
        print(f"{size:,} entries")
        print(f"  admissions             {spread(result.speeds)}")
        shingles = f"{result.shingle_bytes:,.0f} of them shingles"
        print(f"  memory                 {result.entry_bytes:,.0f} bytes an entry, {shingles}")
        print(f"  looked at by a query   {result.looked_at:.1f} entries")
        print(f"  recall at tau          {share(result.both, result.near)}")
        print(f"  precision at tau       {share(result.both, result.refused)}")
        print(f"  recall of 13 x 19      {share(result.near_and_usual, result.near)}")
        print(f"  MinHashLSH alone       {spread(speeds)}, {entry_bytes:,.0f} bytes an entry, without shingles")
        ours = result.entry_bytes - result.shingle_bytes
        print(f"  bands, ours to theirs  {ours / entry_bytes:.2f} of the memory", flush=True)


if __name__ == "__main__":
    main()
