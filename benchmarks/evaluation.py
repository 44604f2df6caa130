"""What the evaluator costs beside the bare training loop, and how busy a burst keeps the evaluators.

    python -m benchmarks.evaluation                              # digits and a Fashion-MNIST subset, 8 programs each
    python -m benchmarks.evaluation --repeats 3 --datasets digits --burst 30

Side by side, program by program, in turns: the bare loop trains in a warm process with as many threads as an evaluator;
the engine takes the same program through Ray Tune, a warm evaluator and a child process, one at a time, and the clock
stops when the driver holds the measurement. Then a burst of programs goes in at once, and the busy share is the
seconds inside the evaluators over wall time times evaluators. Ray runs its workers at a low priority (nice 15), so
the bare loop runs at the same. The bare loop has no sandbox: its programs are the grammar's, never a model's.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KMP_BLOCKTIME", "0")

import ray
import torch

from actors.trial_pool import TrialPool
from nas_ray.build import build_program, load_net
from nas_ray.candidate import Build, Measurement, Trial
from nas_ray.config import DatasetConfig, RunConfig
from nas_ray.datasets import Dataset, in_shape, load_dataset, out_shape
from nas_ray.grading import grade
from nas_ray.grammar import sample_program
from nas_ray.training import TrainingData, hyperparameters, train_and_predict

RAY_NICENESS = 15  # of its workers, unless RAY_worker_niceness says otherwise
DATASETS = {
    "digits": DatasetConfig(name="digits"),
    "fashion-mnist": DatasetConfig(name="fashion-mnist", train_limit=6000, validation_limit=1000),
}


def draw_programs(dataset: Dataset, config: RunConfig, count: int) -> list[str]:
    """The first `count` programs of a seeded draw from the grammar that build within the budget."""
    rng, programs = random.Random(0), []
    prm = hyperparameters(config.protocol)
    _, *shape = in_shape(dataset)
    while len(programs) < count:
        code = sample_program(
            rng, (shape[0], shape[1], shape[2]), dataset.classes, config.budget.parameters, mistakes=0
        )
        if isinstance(build_program(code, in_shape(dataset), out_shape(dataset), prm, config.budget), Build):
            programs.append(code)
    return programs


class BareLoop:
    """The loop alone, warm, in a process of its own."""

    _here: tuple[TrainingData, Dataset, RunConfig]  # in that process

    def __init__(self, config: RunConfig) -> None:
        context = multiprocessing.get_context("spawn")
        self._process = ProcessPoolExecutor(1, context, initializer=BareLoop._start, initargs=(config,))

    @staticmethod
    def _start(config: RunConfig) -> None:
        os.nice(RAY_NICENESS)
        torch.set_num_threads(1)
        dataset = load_dataset(config.dataset)
        BareLoop._here = TrainingData.from_dataset(dataset), dataset, config

    @staticmethod
    def _train(code: str) -> tuple[float, float]:
        data, dataset, config = BareLoop._here
        start = time.perf_counter()
        prm, protocol = hyperparameters(config.protocol), config.protocol
        images = torch.from_numpy(dataset.validation_images)
        prediction = train_and_predict(load_net(code), data, images, protocol, "cpu", prm)
        accuracy, _ = grade(prediction.logits, dataset.validation_labels)
        return time.perf_counter() - start, accuracy

    def run(self, code: str) -> tuple[float, float]:
        """Seconds, from the program's text to its grade, and accuracy."""
        return self._process.submit(BareLoop._train, code).result()

    def close(self) -> None:
        self._process.shutdown()


def run_pool(pool: TrialPool, name: str, programs: Sequence[str]) -> tuple[float, list[Measurement]]:
    """Seconds from the first submission to the last measurement, and the measurements in order of submission."""
    start = time.perf_counter()
    for index, code in enumerate(programs):
        pool.submit((0, index), Trial(code, name, seed=0, epochs=(1,)))
    results: dict[tuple[int, int], Measurement] = {}
    while len(results) < len(programs):
        results |= dict(pool.results(timeout=1.0))
    return time.perf_counter() - start, [results[0, index] for index in range(len(programs))]


def spread(values: Sequence[float]) -> str:
    """Median and quartiles, seconds."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.3f} s [{low:.3f}, {high:.3f}]"


def compare(name: str, repeats: int, burst: int) -> None:
    """Prints one data set's comparison."""
    config = RunConfig(dataset=DATASETS[name])
    dataset = load_dataset(config.dataset)
    programs = draw_programs(dataset, config, 8)
    pool, loop = TrialPool(config, {name: dataset}), BareLoop(config)
    run_pool(pool, name, programs[:2] * pool.capacity)  # warm-up, here and there
    loop.run(programs[0])
    bare: dict[str, list[float]] = {code: [] for code in programs}
    engine: dict[str, list[float]] = {code: [] for code in programs}
    outside: list[float] = []  # of the evaluator: Ray and Tune
    for _ in range(repeats):
        for code in programs:
            seconds, accuracy = loop.run(code)
            bare[code].append(seconds)
            seconds, (measurement,) = run_pool(pool, name, [code])
            engine[code].append(seconds)
            outside.append(seconds - measurement.seconds)
            if measurement.accuracy != accuracy:
                print(f"  accuracies differ: {accuracy} bare, {measurement.accuracy} through the engine")
    loop.close()
    more = [seconds - other for code in programs for seconds, other in zip(engine[code], bare[code], strict=True)]
    print(f"\n{name}: {len(programs)} programs x {repeats}, one at a time, {len(dataset.train_labels)} training images")
    for number, code in enumerate(programs):
        ratio = statistics.median(engine[code]) / statistics.median(bare[code])
        print(f"  program {number}: bare {spread(bare[code])}, engine {spread(engine[code])}, ratio {ratio:.2f}")
    print(f"  more than bare: {spread(more)}, n = {len(more)}; of it outside the evaluator: {spread(outside)}")
    wall, measurements = run_pool(pool, name, [programs[index % len(programs)] for index in range(burst)])
    busy = sum(measurement.seconds for measurement in measurements)
    share = busy / (wall * pool.capacity)
    print(
        f"  burst of {burst}: {wall:.1f} s, {burst / wall:.2f} programs/s, {pool.capacity} evaluators busy {share:.1%}"
    )
    pool.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", choices=sorted(DATASETS), default=list(DATASETS))
    parser.add_argument("--repeats", type=int, default=5, help="of each program (at least 2)")
    parser.add_argument("--burst", type=int, default=60, help="programs submitted at once")
    arguments = parser.parse_args()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    load = os.getloadavg()[0]
    print(f"load average before the start: {load:.1f} on {os.cpu_count()} cores")
    for name in arguments.datasets:
        compare(name, max(2, arguments.repeats), arguments.burst)
    ray.shutdown()


if __name__ == "__main__":
    main()
