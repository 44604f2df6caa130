"""The rooms of a running search: the actors and pools that the driver talks to, opened together and closed together.

In: a configuration and the ledger (what Parquet knows). Out: a generator with the right adapter, a novelty index that
has seen everything admitted so far, builders and a pool of Tune trials. All are rebuilt from the ledger alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

from actors.builder import BuilderPool
from actors.finetune_workers import FinetuneWorkers
from actors.generator import GeneratorHandle
from actors.novelty_index import NoveltyIndexHandle
from actors.trial_pool import TrialPool
from jobs.finetune import open_workers
from jobs.live import Watcher
from nas_ray.config import RunConfig
from nas_ray.datasets import Dataset, in_shape, out_shape
from nas_ray.ledger import Ledger

MODEL_SECONDS = 3600.0  # for the generator's model to be there: a hub may have to send 15 GB first


@dataclass(frozen=True, slots=True)
class Rooms:
    """What a search holds on the cluster."""

    generator: GeneratorHandle
    index: NoveltyIndexHandle
    builders: BuilderPool
    trials: TrialPool
    tuners: FinetuneWorkers
    in_flight: int  # candidates asked for but not finished, at which generation stops asking

    def make_way_for_finetune(self) -> None:
        """Give the idle evaluators' places back where the fine-tune wants places of its own.

        Both might fit, but only what is free on a single node counts, and which one that would be Ray alone knows.
        """
        if self.tuners.holds_place:
            self.trials.release()


@contextmanager
def open_rooms(config: RunConfig, datasets: Mapping[str, Dataset], ledger: Ledger, watcher: Watcher) -> Iterator[Rooms]:
    """Start the actors and pools of a search at the state that the ledger holds; close them at the end."""
    with ExitStack() as stack:
        watcher.phase("start")
        generator = stack.enter_context(closing(GeneratorHandle(config)))
        if ledger.adapter:
            generator.swap(ledger.adapter_folder, ledger.adapter)
        index = stack.enter_context(closing(NoveltyIndexHandle(config.novelty, ledger.rows)))
        dataset = datasets[config.dataset.name]  # candidates are built for its shape
        builders = stack.enter_context(closing(BuilderPool(config, in_shape(dataset), out_shape(dataset))))
        trials = stack.enter_context(closing(TrialPool(config, datasets)))
        trials.start()
        tuners = stack.enter_context(closing(open_workers(config, ledger.store.adapters_folder)))
        generator.ready(MODEL_SECONDS, report=watcher.phase)
        if config.finetune.enabled and not tuners.holds_place:
            tuners.start()  # it is warm by the end of the cycle
        in_flight = config.resources.in_flight or config.model.concurrent_requests + 2 * trials.capacity
        yield Rooms(generator, index, builders, trials, tuners, in_flight)
