"""The search: a language model writes networks, the good and novel ones teach it, cycle after cycle.

    nas-ray search --config examples/quickstart.yaml
    python -m jobs.search --config examples/quickstart.yaml --set cycles=5        (the same, for `ray job submit`)

In: a configuration. Out: a run folder (config.yaml, Parquet tables, adapters, report.html). A run that ended early, by
whatever cause, goes on with `nas-ray resume RUN`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from transformers import AutoTokenizer

from jobs.connection import connect, end_on_signal
from jobs.containment import Unsafe, lower_floor
from jobs.finetune import finetune
from jobs.live import Watcher
from jobs.nodes import NodeGate
from jobs.rooms import Rooms, open_rooms
from jobs.stream import CycleStream
from nas_ray.config import RunConfig
from nas_ray.config_file import load_config
from nas_ray.datasets import Dataset, load_datasets
from nas_ray.finetune_report import FinetuneReport
from nas_ray.generation_requests import RequestWriter
from nas_ray.ledger import Ledger
from nas_ray.model_folder import check_model, resolve_model
from nas_ray.progress import measure_progress
from nas_ray.replay import TrainingSet, choose_pairs
from nas_ray.report import write_report
from nas_ray.selection import select
from nas_ray.stopwatch import Stopwatch
from nas_ray.store import Store


def search(
    store: Store, datasets: Mapping[str, Dataset], writer: RequestWriter, gate: NodeGate, watcher: Watcher
) -> None:
    """Run every cycle that `store` does not hold yet. Ray is connected; all that is found is kept in `store`."""
    config, ledger = store.config, Ledger(store)
    gate.watch(ledger, watcher)
    with open_rooms(config, datasets, ledger, watcher) as rooms:
        for cycle in range(ledger.next_cycle, config.cycles):
            watch = Stopwatch()
            watcher.phase("search")
            requests = writer.write(cycle, ledger.pairs(), ledger.archive())
            stream = CycleStream(cycle, requests, rooms, ledger, watch)
            while not stream.finished:
                stream.advance()  # generate -> check -> filter -> build -> evaluate, each candidate at its own pace
                gate.watch(ledger, watcher)  # a node that cannot hold candidates ends the search
                if watcher.due:
                    watcher.update(stream.snapshot())
            watcher.update(stream.snapshot())

            watcher.phase("fine-tune")
            selection = select(ledger.rows(cycle), config.selection, cycle)
            pairs = [*writer.corpus_pairs, *ledger.pairs(selection)]
            lesson = choose_pairs(pairs, config.finetune, cycle, config.seed)
            report = teach(lesson, rooms, ledger, watch)
            adapter = report.version if report.adapter else ledger.adapter
            ledger.close_cycle(stream.summarise(selection, report, adapter))
            watcher.cycle_done(ledger.cycles[cycle])
            if report.reason and config.finetune.enabled:
                watcher.warn(f"cycle {cycle} made no adapter: {report.reason}")
    write_report(store)


def teach(lesson: TrainingSet, rooms: Rooms, ledger: Ledger, watch: Stopwatch) -> FinetuneReport:
    """Fine-tune on a cycle's lesson; the generator goes on with the new adapter, or the old where none was made."""
    if lesson.training and ledger.config.finetune.enabled:
        rooms.make_way_for_finetune()
    report = finetune(
        lesson.training,
        lesson.held_out,
        ledger.config,
        version=ledger.adapter + 1,
        previous=ledger.adapter_folder,
        adapters_folder=ledger.store.adapters_folder,
        seed=ledger.config.seed,
        workers=rooms.tuners,
    )
    watch.book("finetune", report.train_seconds + report.measure_seconds)
    if report.adapter:
        rooms.generator.swap(report.adapter, report.version)
    return report


def search_command(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML file; else all defaults.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change one key: cycles=5.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Short for --set model.path=: seed, a folder or a hub id.")] = None,
    run: Annotated[str | None, typer.Option(help="Name of the run folder; without it, NAME and the time.")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join; else RAY_ADDRESS, or a local one.")] = None,
    unsafe: Unsafe = False,
) -> None:
    """Search: a language model writes networks, the good ones teach it, cycle after cycle.

    Example:  nas-ray search --config examples/quickstart.yaml --set cycles=5 --set seed=7
    """
    changes = [*(overrides or []), *([f"model.path={model}"] if model else [])]
    settings = lower_floor(load_config(config, changes), unsafe)
    prepared = prepare(settings)
    started = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    name = run or f"{settings.name}-{started}"
    with connect(address):
        gate = NodeGate(settings)
        gate.open()  # before there is a run folder, so that a refusal leaves none
        store = Store.create(f"{settings.folder.rstrip('/')}/{name}", settings)
        drive(store, *prepared, gate)


def prepare(config: RunConfig) -> tuple[dict[str, Dataset], RequestWriter]:
    """Load what a search needs before it starts anything, so that a mistake costs seconds and leaves no run folder."""
    check_model(config.model)
    datasets = load_datasets(config)
    dataset = datasets[config.dataset.name]
    writer = RequestWriter(config, dataset, AutoTokenizer.from_pretrained(resolve_model(config.model.path)))
    writer.write(0, elites=())
    return datasets, writer


def drive(store: Store, datasets: Mapping[str, Dataset], writer: RequestWriter, gate: NodeGate) -> None:
    """Search, and leave everything in order, also when an error, a person or the cluster ends it early."""
    watcher = Watcher(store.config, store.folder, measure_progress(store).cycles)
    note = f"Ended early. What was found is kept; go on with: nas-ray resume {store.folder}"
    with closing(store):
        try:
            with end_on_signal(note), watcher:
                search(store, datasets, writer, gate, watcher)
        except Exception:
            print(note, file=sys.stderr)
            raise
        watcher.finish(store)


if __name__ == "__main__":
    from jobs.cli import main

    main(["search", *sys.argv[1:]])
