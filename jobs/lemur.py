"""LEMUR, both ways: its programs and measurements as a seed corpus, a run's elites as LEMUR keeps programs.

    nas-ray lemur import installed --out corpora/lemur
    nas-ray lemur import nn-dataset/ --out corpora/lemur-1000 --programs 1000 --seed 0
    nas-ray lemur export runs/search --out exports/lemur --top 10

In: a LEMUR tree, or a run folder. Out: Parquet tables that `novelty.corpus` takes, or a tree to copy over LEMUR's. No
code of a program is run, and LEMUR need not be installed. Neither needs Ray.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from jobs.tables import duration, open_console
from nas_ray.config import NoveltyConfig
from nas_ray.lemur.importing import Choice, Counts, Report, import_lemur
from nas_ray.lemur.tree import find_tree
from nas_ray.sketches import Sketcher

LINE_SECONDS = 5.0  # between two lines where there is no terminal

lemur_app = typer.Typer(
    name="lemur",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Exchange programs and measurements with LEMUR (nn-dataset).\n\n"
    "Example:  nas-ray lemur import installed --out corpora/lemur",
)


@lemur_app.command("import")
def import_command(
    source: Annotated[str, typer.Argument(help="Folder that holds LEMUR's ab/nn, or the word installed.")],
    out: Annotated[Path, typer.Option(help="New folder for the tables.")],
    programs: Annotated[int | None, typer.Option(min=1, help="Take so many programs, drawn at random.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    prefix: Annotated[str | None, typer.Option(help="Take programs whose name begins with PREFIX-.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that read; else one a core.")] = None,
) -> None:
    """Read LEMUR's programs and measurements into Parquet tables, for novelty.corpus.

    Example:  nas-ray lemur import installed --out corpora/lemur-1000 --programs 1000
    """
    tree, settings = find_tree(source), NoveltyConfig()
    console, started = open_console(), time.monotonic()
    with _watch(console) as report:
        counts = import_lemur(
            tree,
            out,
            Choice(programs, seed, prefix),
            Sketcher(settings.shingle_tokens, settings.permutations),
            workers,
            report,
        )
    _print_counts(counts, console)
    for line in counts.check():
        console.print(f"The accounts do not add up: {line}.", style="bold red")
    console.print(f"Everything is in {out}, after {duration(time.monotonic() - started)}.", soft_wrap=True)
    console.print(f"Next:  nas-ray search --set novelty.corpus={out}", soft_wrap=True)


@lemur_app.command("export")
def export_command(
    run: Annotated[str, typer.Argument(help="Run folder, its name under runs/, or an address (s3://...).")],
    out: Annotated[Path, typer.Option(help="New folder for the tree.")],
    top: Annotated[int | None, typer.Option(min=1, help="The best so many elites; else all.")] = None,
) -> None:
    """Write a run's elites as LEMUR's files, with LEMUR's training interface and the measured trials.

    Example:  nas-ray lemur export runs/search --out exports/lemur --top 10
    """
    from nas_ray.lemur.export import export_lemur  # it needs torch, which the import can do without
    from nas_ray.store import Store, find_run

    export = export_lemur(Store.open(find_run(run)), out, top)
    console = open_console()
    console.print(f"{len(export.names)} programs and {export.trials} trials are in {out}.", soft_wrap=True)
    for candidate, why in export.refused:
        console.print(f"Not exported: {candidate}, because {why}.", soft_wrap=True)
    for note in export.notes:
        console.print(note, soft_wrap=True)
    console.print(f"Next:  see {out / 'README.md'}", soft_wrap=True)


@contextmanager
def _watch(console: Console) -> Iterator[Report]:
    """Tells how far an import is: bars on a terminal, else a line every few seconds."""
    if not console.is_terminal:
        told = [time.monotonic()]

        def say(phase: str, done: int, total: int) -> None:
            if time.monotonic() - told[0] >= LINE_SECONDS:
                told[0] = time.monotonic()
                console.print(f"{phase}: {done:,} of {total:,}")

        yield say
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def draw(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=total)
            bars.update(tasks[phase], completed=done)

        yield draw


def _print_counts(counts: Counts, console: Console) -> None:
    """The accounts of an import, and the reasons for what was refused."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2))
    for name in ("", "found", "taken", "refused", "passed over"):
        table.add_column(name, justify="left" if not name else "right")
    table.add_row(
        "programs",
        *(f"{n:,}" for n in (counts.program_files, counts.programs, counts.programs_refused, counts.passed_over)),
    )
    table.add_row("trials", f"{counts.trials:,}", f"{counts.measurements:,}", f"{counts.trials_refused:,}", "")
    read = counts.trial_files - counts.trial_files_refused
    table.add_row("files of trials", f"{counts.trial_files:,}", f"{read:,}", f"{counts.trial_files_refused:,}", "")
    console.print(table)
    console.print(
        f"{counts.different_programs:,} different programs, {counts.different_networks:,} different networks; "
        f"{counts.in_contract:,} follow nas-ray's contract; {counts.measured_programs:,} have measurements; "
        f"{counts.empty_trial_files:,} files of trials are empty.",
        soft_wrap=True,
    )
    if counts.reasons:
        reasons = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2))
        reasons.add_column("refused", justify="right")
        reasons.add_column("why")
        for why, count in counts.reasons.items():
            reasons.add_row(f"{count:,}", why)
        console.print(reasons)


if __name__ == "__main__":
    from jobs.cli import main

    main(["lemur", *sys.argv[1:]])
