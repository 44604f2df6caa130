"""Tokens a second of both engines at 1, 8, 32 and 128 requests at once.

    python -m benchmarks.generation                      # the seed model, five bursts of each size
    python -m benchmarks.generation --model PATH --sizes 1 32 --runs 3

A run is a burst: n requests are added together, and the clock stops when the last has ended; programs end where the
model ends them. Each engine has a process of its own and is warmed up by one burst. Both are loaded at the same time
and take turns burst by burst, so that whatever else the machine does hits them alike. With base weights and with a LoRA
adapter.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from itertools import product

from actors.engines import Engine, open_engine
from benchmarks.refresh import PROMPT, save_random_adapter
from nas_ray.candidate import GenerationRequest
from nas_ray.config import ModelConfig, RunConfig

WEIGHTS = ("base", "adapter")
Case = tuple[str, str, int]  # engine, weights, requests at once

_engines: list[Engine] = []  # of a child process: the one it has opened


def open_here(name: str, model: str, concurrent: int) -> float:
    """Open an engine in this process; returns the seconds it took."""
    config = ModelConfig.model_validate({"path": model, "engine": name, "concurrent_requests": concurrent})
    _engines.append(open_engine(RunConfig(model=config)))
    return _engines[0].statistics().start_seconds


def load_here(folder: str | None, version: int) -> None:
    """Load an adapter, or the base weights, into this process's engine."""
    _engines[0].load_adapter(folder, version)


def write_here(count: int, seed: int) -> float:
    """Write one burst with this process's engine; returns its tokens a second."""
    engine = _engines[0]
    started = time.perf_counter()
    for index in range(count):
        engine.add(GenerationRequest(0, index, PROMPT, seed + index))
    tokens = 0
    while engine.busy:
        tokens += sum(done.tokens for done in engine.step())
    return tokens / (time.perf_counter() - started)


def measure(model: str, engines: list[str], sizes: list[int], runs: int) -> dict[Case, list[float]]:
    """Tokens a second of every run of every case."""
    found: dict[Case, list[float]] = defaultdict(list)
    spawn = multiprocessing.get_context("spawn")
    processes = {name: ProcessPoolExecutor(1, spawn) for name in engines}
    with tempfile.TemporaryDirectory() as folder:
        adapters = {"base": None, "adapter": save_random_adapter(model, folder, seed=1)}
        for name, process in processes.items():
            seconds = process.submit(open_here, name, model, max(sizes)).result()
            print(f"{name}: started in {seconds:.1f} s", flush=True)
        for version, weights in enumerate(WEIGHTS):
            for process in processes.values():
                process.submit(load_here, adapters[weights], version).result()
                process.submit(write_here, max(sizes), 0).result()
            for run, size, name in product(range(runs), sizes, engines):
                speed = processes[name].submit(write_here, size, 1000 * run).result()
                found[name, weights, size].append(speed)
    for process in processes.values():
        process.shutdown()
    return found


def print_table(found: dict[Case, list[float]], engines: list[str], sizes: list[int], runs: int) -> None:
    """Medians and spread, then the ratios."""
    middle = {case: statistics.median(speeds) for case, speeds in found.items()}
    print(f"\ntokens/s, median of {runs} bursts (lowest to highest)")
    print(f"{'requests at once':<26}" + "".join(f"{size:>24}" for size in sizes))
    for name, weights in product(engines, WEIGHTS):
        cases = [(name, weights, size) for size in sizes]
        cells = [f"{middle[case]:.0f} ({min(found[case]):.0f} to {max(found[case]):.0f})" for case in cases]
        print(f"{name + ', ' + weights:<26}" + "".join(f"{cell:>24}" for cell in cells))
    for name, weights in product(engines, WEIGHTS):
        ratios = [f"{middle[name, weights, size] / middle[name, weights, sizes[0]]:.1f} x at {size}" for size in sizes]
        print(f"{name}, {weights}, beside itself at {sizes[0]}: {', '.join(ratios[1:])}")
    if len(engines) == 2:
        first, second = engines
        for weights in WEIGHTS:
            ratios = [f"{middle[first, weights, n] / middle[second, weights, n]:.2f} x at {n}" for n in sizes]
            print(f"{first} beside {second}, {weights}: {', '.join(ratios)}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="seed")
    parser.add_argument("--engines", nargs="+", default=["vllm", "transformers"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[1, 8, 32, 128])
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    found = measure(given.model, given.engines, given.sizes, given.runs)
    print_table(found, given.engines, given.sizes, given.runs)


if __name__ == "__main__":
    main()
