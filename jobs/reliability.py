"""Train a random part of a run's candidates again: how far can one short training be trusted, and what would help?

    nas-ray reliability RUN
    nas-ray reliability RUN --programs 60 --seeds 3 --long 20 --epochs 10 --minutes 30
    python -m jobs.reliability RUN                                                  (the same, for `ray job submit`)

In: a run folder. Out: rows of the purpose `reliability` in the run's own tables, and what they say. What is there
already is not measured again; a larger part begins with the smaller one.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from typing import Annotated

import typer
from rich.console import Console

from jobs.containment import Unsafe, lower_floor
from jobs.reevaluation import reevaluate
from jobs.reliability_text import print_reliability
from jobs.tables import open_console
from nas_ray.design_advice import Advice, advise, count_needed
from nas_ray.reevaluation import Score, load_targets, read_scores
from nas_ray.reliability import (
    LONG,
    LONG_SEEDS,
    LONGER,
    PROGRAMS,
    SEEDS,
    Plan,
    Reliability,
    choose_random,
    plan_reliability,
)
from nas_ray.run_table import RunTable
from nas_ray.schema import CandidateRow
from nas_ray.store import Store, find_run


def reliability_command(
    run: Annotated[str, typer.Argument(help="Run folder, its name under runs/, or an address (s3://...).")],
    programs: Annotated[int, typer.Option(min=1, help="Valid candidates, drawn at random.", metavar="N")] = PROGRAMS,
    seeds: Annotated[int, typer.Option(min=2, max=1000, help="Fresh trainings of each.")] = SEEDS,
    long: Annotated[
        int,
        typer.Option(min=0, help=f"As many of them are also trained for longer, from {LONG_SEEDS} seeds.", metavar="N"),
    ] = LONG,
    epochs: Annotated[
        int | None, typer.Option(min=1, help=f"Length of these trainings; else {LONGER} times the protocol's.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0, help="Begin no training after so many minutes; 0: none.", metavar="MINUTES"),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="One of the run's data sets; else all of them.", metavar="NAME")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object instead.")] = False,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join; else RAY_ADDRESS, or a local one.")] = None,
    unsafe: Unsafe = False,
) -> None:
    """Train a random part of a run again: how much of its scores is luck, and do seeds, epochs or neither pay?

    Example:  nas-ray reliability runs/search --programs 60 --seeds 3 --long 20 --minutes 30
    """
    store = Store.open(find_run(run))
    plans = plan_reliability(store.config, seeds, epochs, dataset)
    datasets = load_targets([plan.short for plan in plans], store.config.protocol.resolution)
    candidates = choose_random(RunTable.read(store).candidates, programs)
    console = Console(stderr=True) if as_json else open_console()
    with closing(store):
        store.recover()  # takes the lock, so that a running search is left alone
        work = list_work(store, plans, candidates, long)
        # The search has trained them on all of these. Where it did not build, a build says the sizes, no more.
        admitting = store.config.budget.model_copy(update={"flops": sys.float_info.max})
        config = lower_floor(store.config.model_copy(update={"budget": admitting}), unsafe)
        seconds = None if minutes is None else 60 * minutes
        lost = reevaluate(store, config, work, datasets, address, console, seconds) if seconds != 0 else []
        left = sum(len(score.missing) for _, score in list_work(store, plans, candidates, long))
    table = RunTable.read(store)
    found = [(measured, advise(measured, table)) for measured in _read_all(table, plans)]
    if as_json:
        said = [_values(measured, advice) for measured, advice in found]
        typer.echo(json.dumps({"run": store.folder, "left": left, "lost": lost, "data_sets": said}, indent=2))
    else:
        print_reliability(found, left, lost, console)


def list_work(
    store: Store, plans: list[Plan], candidates: list[CandidateRow], long: int
) -> list[tuple[CandidateRow, Score]]:
    """Every candidate with what is known of it; all short trainings first, as nothing can be said without them."""
    rows = store.evaluations()
    work = []
    for target, part in [
        *((plan.short, candidates) for plan in plans),
        *((plan.long, candidates[:long]) for plan in plans),
    ]:
        scores = read_scores(rows, [row.id for row in part], [target])
        work += [(row, scores[row.id, target.name]) for row in part]
    return work


def _read_all(table: RunTable, plans: list[Plan]) -> list[Reliability]:
    found = (Reliability.read(table, plan.short.name) for plan in plans)
    return [measured for measured in found if measured is not None]


def _values(measured: Reliability, advice: Advice | None) -> dict[str, object]:
    values = advice.as_values() if advice is not None else None
    return {**measured.as_values(), "programs_needed": count_needed(measured), "advice": values}


if __name__ == "__main__":
    from jobs.cli import main

    main(["reliability", *sys.argv[1:]])
