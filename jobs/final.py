"""The final round: the best of a run trained for longer, and their test accuracy, measured once.

    nas-ray final RUN
    nas-ray final RUN --top 3 --epochs 20 --seeds 5
    python -m jobs.final RUN                                                        (the same, for `ray job submit`)

In: a run folder. Out: rows of the purpose `final` in the run's own tables, a table, and the same in report.html. Called
again it goes on where it was ended, or shows what was measured.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.containment import Unsafe, lower_floor
from jobs.reevaluation import reevaluate
from jobs.tables import ID_DIGITS, open_console, percent, percent_interval
from nas_ray.datasets import append_test, load_datasets
from nas_ray.final_round import (
    LONGER,
    SEEDS,
    TOP,
    Finalist,
    FinalRound,
    FinalRoundError,
    explain_once,
    plan_round,
    read_rounds,
    round_values,
)
from nas_ray.progress import measure_progress
from nas_ray.report import write_report
from nas_ray.store import Store, find_run


def final_command(
    run: Annotated[str, typer.Argument(help="Run folder, its name under runs/, or an address (s3://...).")],
    top: Annotated[
        int | None, typer.Option(min=1, help=f"Finalists: the best K by validation accuracy; else {TOP}.", metavar="K")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help=f"Length of each training; else {LONGER} times the protocol's.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, max=1000, help=f"Trainings of each finalist; else {SEEDS}.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="One more final round; the result says how many looks there were.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object instead.")] = False,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join; else RAY_ADDRESS, or a local one.")] = None,
    unsafe: Unsafe = False,
) -> None:
    """Train a run's best for longer from several seeds, and measure them on the test split, once.

    Example:  nas-ray final runs/search --top 5 --epochs 20 --seeds 3
    """
    store = Store.open(find_run(run))
    rounds = read_rounds(store)
    console = Console(stderr=True) if as_json else open_console()
    lost: list[str] = []
    known = bool(rounds) and rounds[-1].finished and not force
    if not known:
        with closing(store):
            store.recover()  # takes the lock, so that a running search is left alone
            lost = measure_round(store, top, epochs, seeds, force, address, unsafe, console)
        rounds = read_rounds(store)
    if as_json:
        typer.echo(json.dumps({"run": store.folder, **round_values(rounds[-1], len(rounds)), "lost": lost}, indent=2))
    else:
        print_round(rounds[-1], len(rounds), lost, console)
    if known:
        if not rounds[-1].answers(top, epochs, seeds):
            raise FinalRoundError(explain_once(rounds[-1]))
        console.print(Text(f"Not measured now: {explain_once(rounds[-1])}."), soft_wrap=True)


def measure_round(
    store: Store,
    top: int | None,
    epochs: int | None,
    seeds: int | None,
    force: bool,
    address: str | None,
    unsafe: bool,
    console: Console,
) -> list[str]:
    """Measure the final round that is asked for, or the rest of one that was begun; returns what was lost."""
    config = store.config
    progress = measure_progress(store)
    if not progress.finished:
        done = f"{progress.finished_cycles} of {progress.wanted_cycles} cycles are finished"
        console.print(f"warning: {done}; a search should be over before its test split is looked at.", soft_wrap=True)
    datasets = load_datasets(config)
    row = plan_round(store, datasets, top, epochs, seeds, force)
    if row.round == len(store.final_rounds()):
        store.append_final_round(row)
    work = [(one.candidate, one.score) for one in read_rounds(store)[-1].finalists]
    tested = {name: append_test(dataset) for name, dataset in datasets.items()}
    # The search has trained the finalists on all of these. Where it did not build, a build says the sizes, no more.
    admitting = config.budget.model_copy(update={"flops": sys.float_info.max})
    config = lower_floor(config.model_copy(update={"budget": admitting}), unsafe)
    lost = reevaluate(store, config, work, tested, address, console)
    write_report(store)
    return lost


def print_round(final: FinalRound, looks: int, lost: list[str], console: Console) -> None:
    """The finalists on each data set, the run's choice, and how often the test split was looked at."""
    for name, images in zip(final.row.datasets, final.row.test_images, strict=True):
        finalists = final.of(name)
        console.print()
        console.print(Text(f"{name}: {images:,} test images, {final.row.epochs} epochs", style="bold"))
        console.print(_table(finalists))
        best = finalists[0]
        if best.test is not None and final.finished:
            reached = best.test if len(best.trainings) > 1 else best.trainings[0]
            words = (
                f"Chosen by validation accuracy: {best.candidate.id}, {percent_interval(reached)} % of the test split."
            )
            console.print(Text(words, style="green"), soft_wrap=True)
    seeds = final.row.seeds
    means = f"Means over {len(seeds)} seeds from {seeds[0]} with Student's t intervals (95 %, over the seeds); each"
    lines = [
        f"{means if len(seeds) > 1 else f'Seed {seeds[0]}; each'} training with Wilson's (95 %, over the test images). "
        "Best on validation first: the test split chooses nothing. Trained on the training split alone, as in the "
        "search.",
        "The test split was looked at once." if looks == 1 else f"The test split was looked at {looks} times.",
        *(f"The engine lost {one}." for one in lost),
    ]
    if not final.finished:
        lines.append("Not finished: run the command again.")
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _table(finalists: list[Finalist]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1))
    for name in ("id", "in the search", "validation [95 %]", "test [95 %]"):
        table.add_column(name, justify="left" if name == "id" else "right", no_wrap=True)
    table.add_column("each training on the test split [95 %]", overflow="fold")
    for one in finalists:
        failure = one.score.failure
        each = "; ".join(percent_interval(training) for training in one.trainings)
        told = f"{failure.outcome}, {failure.detail}" if failure else each
        table.add_row(
            one.candidate.id[:ID_DIGITS],
            percent(one.candidate.accuracy),
            Text(percent_interval(one.validation)),
            Text(percent_interval(one.test)),
            Text(told if one.score.outcome is not None else "not measured yet"),
        )
    return table


if __name__ == "__main__":
    from jobs.cli import main

    main(["final", *sys.argv[1:]])
