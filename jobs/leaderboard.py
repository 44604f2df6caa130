"""The best candidates of a run.

    nas-ray leaderboard runs/search --top 20
    python -m jobs.leaderboard runs/search --top 20                              (the same)

In: a run folder. Out: a table of novel, valid candidates by accuracy on the validation split.
"""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.tables import candidate_table, open_console
from nas_ray.leaderboard import rank
from nas_ray.store import Store, find_run


def leaderboard_command(
    run: Annotated[str, typer.Argument(help="Run folder, its name under runs/, or an address (s3://...).")],
    top: Annotated[int, typer.Option(help="How many candidates to list.", min=1)] = 10,
) -> None:
    """List the best candidates of a run by their accuracy on the validation split.

    Example: nas-ray leaderboard runs/search --top 20
    """
    store = Store.open(find_run(run))
    ranked = rank(store.candidates())
    console = open_console()
    if not ranked:
        console.print(f"{store.folder} has no valid candidate yet. `nas-ray status {run}` shows how far it is.")
        return
    console.print(candidate_table(ranked[:top]))
    console.print(
        f"{min(top, len(ranked))} of {len(ranked)}. Accuracy is that of the validation split; `nas-ray export` "
        f"measures the test split.\nNext: nas-ray show {run} {ranked[0].id[:10]}",
        soft_wrap=True,
    )


if __name__ == "__main__":
    import sys

    from jobs.cli import main

    main(["leaderboard", *sys.argv[1:]])
