"""Is a run still learning, or does it memorise, starve or measure noise?

    nas-ray diagnose runs/search
    python -m jobs.diagnose runs/search                                            (the same)

In: a run folder, finished or not. Out: the diagnostics D1 to D17, each with its verdict, number, meaning and what to
change. Nothing is trained; `nas-ray reliability` measures what D6, D15 and D16 need.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from jobs.tables import open_console
from nas_ray.diagnostics import Diagnosis, Diagnostic, diagnose
from nas_ray.run_table import RunTable
from nas_ray.store import Store, find_run

STYLES = {"ok": "green", "note": "cyan", "problem": "bold red", "untestable": "dim"}
INDENT = (0, 0, 0, 16)


def diagnose_command(
    run: Annotated[str, typer.Argument(help="Run folder, its name under runs/, or an address (s3://...).")],
    bar: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Accuracy that programs are counted over in all cycles; else the first cycle's bar."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say whether a run is learning, memorising, starving or measuring noise: 17 diagnostics on its rows.

    Example: nas-ray diagnose runs/search
    """
    store = Store.open(find_run(run))
    diagnosis = diagnose(RunTable.read(store), bar)
    if as_json:
        typer.echo(json.dumps(diagnosis.as_values(), indent=2))
        return
    console = open_console()
    console.print(Text(diagnosis.headline, style="bold"), soft_wrap=True)
    if diagnosis.bar is not None:
        counted = f"Programs are counted over {100 * diagnosis.bar:.1f} % accuracy in every cycle."
        console.print(counted, highlight=False)
    console.print()
    for one in diagnosis.diagnostics:
        print_diagnostic(one, console)


def print_diagnostic(one: Diagnostic, console: Console) -> None:
    """One diagnostic as a line and, below it, what it means and what to change."""
    line = Text(f"{one.id:4}").append(f"{one.verdict:12}", style=STYLES[one.verdict]).append(one.question)
    if one.measured is not None:
        low, estimate, high = one.measured
        line.append(f"  {estimate:.3g} [{low:.3g}, {high:.3g}] {one.unit}", style="bold")
    console.print(line)
    console.print(Padding(Text(one.finding), INDENT))
    if one.advice:
        console.print(Padding(Text("change: ", style="bold").append(one.advice, style="not bold"), INDENT))


def describe_briefly(diagnosis: Diagnosis, shown: str) -> Iterator[str]:
    """The end of a search in a few lines: the headline, the problems with what to change, and where all of it is."""
    yield diagnosis.headline
    for one in diagnosis.diagnostics:
        if one.verdict == "problem":
            yield f"  {one.id}: {one.finding}. Change: {one.advice}"
    yield f"All diagnostics:  nas-ray diagnose {shown}"


if __name__ == "__main__":
    from jobs.cli import main

    main(["diagnose", *sys.argv[1:]])
