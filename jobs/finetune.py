"""The fine-tune between two cycles, as a Ray Train job; also by hand, for a cycle that is finished.

    nas-ray finetune runs/search --cycle 4 --out retry
    python -m jobs.finetune runs/search                                        (the last cycle)

In: prompt-code pairs and the adapter that wrote them. Out: a new adapter version and a `FinetuneReport`. Ray Train
places and restarts the workers (`actors.finetune_workers`); what they do is `nas_ray.lora.train_adapter`.
"""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from transformers import AutoTokenizer

from actors.finetune_workers import FinetuneTask, FinetuneWorkers
from nas_ray.adapters import (
    adapter_folder,
    copy_adapter,
    fetch_adapter,
    folder_within,
    holds_adapter,
    newest_version,
    publish_adapter,
)
from nas_ray.config import RunConfig
from nas_ray.datasets import load_dataset
from nas_ray.finetune_report import FinetuneError, FinetuneReport
from nas_ray.generation_requests import RequestWriter
from nas_ray.ledger import Ledger
from nas_ray.model_folder import resolve_model
from nas_ray.replay import Pair, choose_pairs
from nas_ray.store import Store, find_run


def finetune(
    pairs: Sequence[Pair],
    held_out: Sequence[Pair],
    config: RunConfig,
    version: int,
    previous: str | Path | None,
    adapters_folder: str | Path,
    seed: int,
    workers: FinetuneWorkers | None = None,
) -> FinetuneReport:
    """Train adapter `version` on `pairs` and put it into `adapters_folder`/NNNN (a path or an object store).

    `previous` is the folder of the adapter that wrote the newest pairs (None: the base model did). `workers` are those
    of a search, which stay warm from cycle to cycle; without them some are started and ended here. Blocks; Ray is
    connected.

    Without pairs, or if the workers are lost more often than `finetune.attempts` allows, no adapter is made and the
    report's `reason` says why: a search goes on with the adapter it has. Called again for a version that is whole (by a
    driver whose predecessor was killed before it wrote that down), it returns that version's report.

    Raises FinetuneError if that version was made from other pairs.
    """
    begun = time.perf_counter()
    nothing = FinetuneReport(version=version, start=config.finetune.start, previous=str(previous or ""))
    if not config.finetune.enabled:
        return replace(nothing, reason="finetune.enabled is false")
    if not pairs:
        return replace(nothing, reason="there are no elites to learn from")
    target = adapter_folder(adapters_folder, version)
    if holds_adapter(target):
        return _report_of(target, pairs)
    task = FinetuneTask(
        version=version,
        model=config.model.path if config.model.path == "seed" else resolve_model(config.model.path),
        pairs=tuple(pairs),
        held_out=tuple(held_out),
        config=config.finetune,
        style=config.model.style,
        previous=str(previous or ""),
        seed=seed,
    )
    at_work = workers or open_workers(config, adapters_folder)
    try:
        report, finished = at_work.run(task)
        if report.reason:
            return replace(nothing, reason=report.reason, seconds=time.perf_counter() - begun)
        with tempfile.TemporaryDirectory(prefix="nas-ray-adapter-") as scratch:
            adapter = copy_adapter(finished, Path(scratch))
            report = replace(report, adapter=target, seconds=time.perf_counter() - begun)
            report.save(adapter)
            publish_adapter(adapter, target)
        return report
    finally:
        if workers is None:
            at_work.close()
        elif workers.holds_place:
            workers.release()


def open_workers(config: RunConfig, adapters_folder: str | Path) -> FinetuneWorkers:
    """The workers of a run; their checkpoints lie beside its adapters, in reach of every node that reaches those."""
    # A name of its own: workers of a driver that was killed a moment ago may still be writing into theirs.
    return FinetuneWorkers(config.finetune, folder_within(adapters_folder, f".finetune-{uuid.uuid4().hex[:8]}.tmp"))


def _report_of(target: str, pairs: Sequence[Pair]) -> FinetuneReport:
    with tempfile.TemporaryDirectory(prefix="nas-ray-adapter-") as scratch:
        report = FinetuneReport.load(fetch_adapter(target, Path(scratch)))
    if not {*report.training_ids} <= {pair.id for pair in pairs}:
        raise FinetuneError(f"{target} was trained on other programs, and none is ever overwritten; move it away")
    return replace(report, adapter=target)  # the run folder may have moved since


def finetune_again(store: Store, cycle: int | None = None, out: str | None = None) -> FinetuneReport:
    """The fine-tune of a finished cycle (the last one if None) once more, into the next version in the folder `out`.

    It starts from the adapter that wrote the cycle's programs. `out` is "adapters_by_hand" in the run folder if None:
    the search's own versions stay as they are. Ray is connected.

    Raises FinetuneError if that cycle is not finished, or if no adapter could be made.
    """
    ledger = Ledger(store)
    if not ledger.cycles:
        raise FinetuneError(f"{store.folder} has no finished cycle yet, so there is nothing to fine-tune on")
    cycle = max(ledger.cycles) if cycle is None else cycle
    if cycle not in ledger.cycles:
        raise FinetuneError(f"cycle {cycle} of {store.folder} is not finished; finished are 0 to {max(ledger.cycles)}")
    pairs = [*corpus_pairs(store.config), *ledger.pairs()]
    lesson = choose_pairs(pairs, store.config.finetune, cycle, store.config.seed)
    written_by = ledger.cycles[cycle - 1].adapter if cycle else 0
    adapters = out or folder_within(store.folder, "adapters_by_hand")
    report = finetune(
        lesson.training,
        lesson.held_out,
        store.config,
        newest_version(adapters) + 1,
        store.adapter_folder(written_by) if written_by else None,
        adapters,
        store.config.seed,
    )
    if report.reason:
        raise FinetuneError(f"no adapter was made: {report.reason}")
    return report


def corpus_pairs(config: RunConfig) -> tuple[Pair, ...]:
    """The pairs of a run's seed corpus, as the search made them; raises CorpusError where the corpus has gone."""
    if not config.novelty.corpus_pairs:
        return ()
    dataset = load_dataset(config.dataset, config.protocol.resolution)
    tokenizer = AutoTokenizer.from_pretrained(resolve_model(config.model.path))
    return RequestWriter(config, dataset, tokenizer).corpus_pairs


def finetune_command(
    run: Annotated[str, typer.Argument(help="Run folder, its name under runs/, or an address (s3://...).")],
    cycle: Annotated[int | None, typer.Option(help="A finished cycle; the last one if not given.", min=0)] = None,
    out: Annotated[
        str | None, typer.Option(help="Folder to put the new version into; RUN/adapters_by_hand if not given.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster; RAY_ADDRESS, else this machine, if not given.")
    ] = None,
) -> None:
    """Fine-tune the generator once more on what a finished cycle selected, into a new adapter.

    It starts from the adapter that wrote that cycle's programs. The search's own versions stay as they are, and it goes
    on with those. Example: nas-ray finetune runs/search --cycle 4 --out retry
    """
    from jobs.connection import connect  # brings every actor's module, which a search that imports this one has already

    store = Store.open(find_run(run))
    with connect(address):
        report = finetune_again(store, cycle, out)
    Console().print(describe(report), soft_wrap=True)


def describe(report: FinetuneReport) -> str:
    """A finished fine-tune in a few lines."""
    lines = [
        f"Adapter {report.version}: {len(report.training_ids)} programs, {report.steps} steps, {report.seconds:.1f} s "
        f"(training {report.train_seconds:.1f} s), in {report.adapter}"
    ]
    for name, before, after in (
        ("trained on", report.nll_before_train, report.nll_after_train),
        ("held out", report.nll_before_held_out, report.nll_after_held_out),
    ):
        if before:
            lines.append(
                f"Mean negative log-likelihood of the {len(before)} programs {name}: "
                f"{sum(before) / len(before):.1f} -> {sum(after) / len(after):.1f} nats a program"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    import sys

    from jobs.cli import main

    main(["finetune", *sys.argv[1:]])
