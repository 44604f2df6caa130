"""Where a run stands.

    nas-ray status runs/search
    python -m jobs.status runs/search                                            (the same)

In: a run folder. Out: a table of its cycles, the best candidate so far, what is doing now, and what to do next.
"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from jobs.tables import cycle_table, open_console, percent
from nas_ray.funnel import check_accounting
from nas_ray.nodes import describe_nodes
from nas_ray.progress import Progress, measure_progress
from nas_ray.store import Store, find_run


def status_command(
    run: Annotated[str, typer.Argument(help="Run folder, its name under runs/, or an address (s3://...).")],
) -> None:
    """Show how far a run is: cycle by cycle, the best candidate so far, and whether it is being worked on.

    Example: nas-ray status runs/search
    """
    store = Store.open(find_run(run))
    progress = measure_progress(store)
    console = open_console()
    config = store.config
    title = f"{config.name}: {config.dataset.name}, {config.model.path} model, {store.folder}"
    console.print(Text(title, style="bold"), soft_wrap=True)
    if progress.cycles:
        console.print(cycle_table(progress.cycles))
    if progress.best is not None:
        best = progress.best
        console.print(f"Best so far: {best.id}, {percent(best.accuracy)} on the validation split, cycle {best.cycle}.")
    console.print(Text(describe_nodes(store.nodes())), soft_wrap=True)
    console.print(standing(store, progress), soft_wrap=True)
    for problem in check_accounting(store):
        console.print(Text(f"The accounts do not add up: {problem}.", style="red"), soft_wrap=True)


def standing(store: Store, progress: Progress) -> str:
    """One or two sentences: finished, being worked on, or stopped, and what to do next."""
    if progress.finished:
        cycles = f"{progress.finished_cycles} of {progress.wanted_cycles} cycles"
        return f"Finished: {cycles}. Next: nas-ray leaderboard {store.folder}"
    done = sum(summary.funnel.generated for summary in progress.cycles if summary.row is None)
    place = (
        f"{progress.finished_cycles} of {progress.wanted_cycles} cycles finished, "
        f"{done} of {progress.candidates_per_cycle} candidates of the next one."
    )
    if (driver := store.driver()) is not None:
        return f"Running: {place} Process {driver.pid} on {driver.host} since {driver.since}."
    if "://" in store.folder:
        return f"{place} Whether a driver is alive cannot be seen on an object store."
    return f"Stopped: {place} Go on with: nas-ray resume {store.folder}"


if __name__ == "__main__":
    import sys

    from jobs.cli import main

    main(["status", *sys.argv[1:]])
