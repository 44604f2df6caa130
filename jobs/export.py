"""A candidate as files of its own, that run where nas-ray is not.

    nas-ray export runs/search 3f2a --out exports
    nas-ray export runs/search 3f2a --epochs 20                                  (trained for longer)

In: a run folder and a candidate. Out: a program with a `load()` function, its weights in safetensors, and a card with
its accuracy on the validation split and on the test split, which nothing else in nas-ray looks at.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs.containment import Unsafe, lower_floor
from jobs.tables import open_console, percent
from nas_ray.export import export_candidate
from nas_ray.store import Store, find_run


def export_command(
    run: Annotated[str, typer.Argument(help="Run folder, its name under runs/, or an address (s3://...).")],
    candidate: Annotated[str, typer.Argument(help="Id, the beginning of one, or CYCLE/INDEX.")],
    out: Annotated[Path, typer.Option(help="Folder for the three files.")] = Path("exports"),
    epochs: Annotated[int | None, typer.Option(help="Epochs in place of the protocol's.", min=1)] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads; as in the search, the weights are the same.", min=1)] = 1,
    unsafe: Unsafe = False,
) -> None:
    """Retrain a candidate, measure it on the test split, and write it as files that need only torch and safetensors.

    Example: nas-ray export runs/search 3f2a --out exports --epochs 20
    """
    store = Store.open(find_run(run))
    store.config = lower_floor(store.config, unsafe)  # for this process; nothing is written into the run
    export = export_candidate(store, candidate, out, epochs, device, threads)
    card = export.card
    console = open_console()
    before = card["validation"]["accuracy_in_the_search"]
    console.print(
        f"Validation {percent(card['validation']['accuracy'])} ({percent(before)} in the search), "
        f"test {percent(card['test']['accuracy'])}.",
        soft_wrap=True,
    )
    for path in (export.program, export.weights, export.card_path):
        console.print(str(path), soft_wrap=True)


if __name__ == "__main__":
    from jobs.cli import main

    main(["export", *sys.argv[1:]])
