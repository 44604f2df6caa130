"""The best candidates of a run.

    nas-ray leaderboard runs/search --top 20
    nas-ray leaderboard runs/search --pareto --goals accuracy,parameters,latency
    python -m jobs.leaderboard runs/search --top 20                              (the same)

In: a run folder. Out: a table of novel, valid candidates by accuracy on the validation split, or of those of them that
no other one beats in all goals; with `--json` a JSON object for each.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console

from jobs.scatter import draw_dots
from jobs.tables import candidate_table, open_console
from nas_ray.leaderboard import WINNERS_CURSE, pareto_front, rank
from nas_ray.pareto import goal_value, parse_goals
from nas_ray.schema import CandidateRow
from nas_ray.store import Store, find_run

TOP = 10
USUAL_GOALS = ("accuracy", "parameters")
FACTS = (
    "id",
    "accuracy",
    "loss",
    "parameters",
    "flops",
    "latency_ms",
    "depth",
    "epochs",
    "cycle",
    "index",
    "adapter",
    "mode",
    "parent_ids",
)


def leaderboard_command(
    run: Annotated[str, typer.Argument(help="Run folder, its name under runs/, or an address (s3://...).")],
    top: Annotated[
        int | None, typer.Option(help="How many candidates to list: 10, or with --pareto all of them.", min=1)
    ] = None,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="List the Pareto front: what no other beats in all goals.")
    ] = False,
    goals: Annotated[
        str | None,
        typer.Option(
            metavar="GOAL,GOAL",
            help="Of --pareto: accuracy, then any of parameters, flops, latency; else those of the run, "
            "or accuracy,parameters.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object for each candidate.")] = False,
) -> None:
    """List the best candidates of a run by their accuracy on the validation split.

    Examples: nas-ray leaderboard runs/search --top 20   |   nas-ray leaderboard search --pareto --goals accuracy,flops
    """
    wanted = parse_goals(goals) if goals else None
    store = Store.open(find_run(run))
    if wanted is None:
        wanted = store.config.selection.goals if len(store.config.selection.goals) > 1 else USUAL_GOALS
    pareto = pareto or goals is not None
    ranked = rank(store.candidates())
    listed = pareto_front(ranked, wanted) if pareto else ranked
    shown = listed[:top] if pareto else listed[: top or TOP]
    if as_json:
        for number, row in enumerate(shown, start=1):
            typer.echo(_json(number, row))
        return
    console = open_console()
    if not ranked:
        console.print(f"{store.folder} has no valid candidate yet. `nas-ray status {run}` shows how far it is.")
        return
    console.print(candidate_table(shown, details=True))
    if pareto:
        _describe_front(console, ranked, listed, wanted)
    count = f"{len(shown)} of {len(listed)}"
    console.print(
        f"{count}. Accuracy is that of the validation split; `nas-ray final` measures the test split.\n"
        f"{WINNERS_CURSE}\nNext: nas-ray show {run} {shown[0].id[:10]}",
        soft_wrap=True,
    )


def _describe_front(
    console: Console, ranked: Sequence[CandidateRow], front: Sequence[CandidateRow], goals: Sequence[str]
) -> None:
    """What the front is one of, what was not measured, and a picture of accuracy against the first known cost."""
    known = [goal for goal in goals[1:] if any(goal_value(row, goal) is not None for row in ranked)]
    console.print(f"\nPareto front of {len(ranked)} candidates over {', '.join(goals)}.", soft_wrap=True)
    for goal in (goal for goal in goals[1:] if goal not in known):
        console.print(f"No candidate of this run has a measured {goal}, so it plays no part.", soft_wrap=True)
    if known:
        console.print()
        console.print(draw_dots(ranked, front, known[0]), markup=False, highlight=False)
        console.print()


def _json(number: int, row: CandidateRow) -> str:
    facts: dict[str, Any] = {name: getattr(row, name) for name in FACTS}
    return json.dumps({"rank": number, **facts})


if __name__ == "__main__":
    import sys

    from jobs.cli import main

    main(["leaderboard", *sys.argv[1:]])
