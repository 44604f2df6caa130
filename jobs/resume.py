"""Go on with a run that ended early, at the very candidate.

    nas-ray resume runs/quickstart-20261121-204800
    nas-ray resume RUN --cycles 10                     (and make it longer)
    python -m jobs.resume s3://bucket/nas-ray/RUN      (the same, for `ray job submit`)

In: a run folder. Out: the same folder, finished. What was finished is neither lost nor done twice: completions without
a final row are checked and trained, requests without a completion are asked again with their own seeds.
"""

from __future__ import annotations

import sys
from contextlib import closing
from typing import Annotated

import typer

from jobs.connection import connect
from jobs.containment import Unsafe, lower_floor
from jobs.nodes import NodeGate
from jobs.search import drive, prepare
from nas_ray.report import write_report
from nas_ray.store import Store, find_run


def resume_command(
    run: Annotated[str, typer.Argument(help="Run folder, its name under runs/, or an address (s3://...).")],
    cycles: Annotated[int | None, typer.Option(min=1, help="Make the run this many cycles long.")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join; else RAY_ADDRESS, or a local one.")] = None,
    unsafe: Unsafe = False,
) -> None:
    """Go on with a search that was interrupted, or make a finished one longer.

    Example:  nas-ray resume runs/quickstart-20261121-204800 --cycles 10
    """
    store = Store.open(find_run(run))
    prepared = prepare(store.config)
    store.recover()
    for closed in store.cycles():
        store.compact(closed.cycle)  # a driver may have died between closing a cycle and merging its files
    if cycles is not None:
        store.change_cycles(cycles)
    if len(store.cycles()) >= store.config.cycles:
        write_report(store)
        typer.echo(f"{store.folder} is finished: {store.config.cycles} cycles. Make it longer with --cycles N.")
        return
    store.config = lower_floor(store.config, unsafe)  # for this process; the stored configuration keeps its floor
    with closing(store), connect(address):
        gate = NodeGate(store.config)
        gate.open()
        drive(store, *prepared, gate)


if __name__ == "__main__":
    from jobs.cli import main

    main(["resume", *sys.argv[1:]])
