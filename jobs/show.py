"""One candidate: its code, where it came from, and what was measured.

    nas-ray show runs/search 3f2a
    nas-ray show runs/search 2/14                                                (candidate 14 of cycle 2)

In: a run folder and an id, the beginning of one, or CYCLE/INDEX. Out: the candidate on the terminal; with `--code` its
program alone, to be piped into a file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from jobs.tables import ID_DIGITS, duration, open_console, percent
from nas_ray.deltas import WANTED
from nas_ray.leaderboard import Dossier, open_dossier
from nas_ray.outcome import Outcome
from nas_ray.schema import CandidateRow, EvaluationRow
from nas_ray.store import Store, find_run


def show_command(
    run: Annotated[str, typer.Argument(help="Run folder, its name under runs/, or an address (s3://...).")],
    candidate: Annotated[str, typer.Argument(help="Id, the beginning of one, or CYCLE/INDEX.")],
    code: Annotated[bool, typer.Option("--code", help="Print the program alone.")] = False,
    prompt: Annotated[bool, typer.Option("--prompt", help="Show the prompt too.")] = False,
) -> None:
    """Show one candidate: code, lineage, measurements, and how it ended.

    Examples: nas-ray show runs/search 3f2a   |   nas-ray show runs/search 2/14   |   nas-ray show search 3f2a --code
    """
    dossier = open_dossier(Store.open(find_run(run)), candidate)
    if code:
        sys.stdout.write(dossier.row.code.rstrip("\n") + "\n")
        return
    console = open_console()
    row = dossier.row
    console.print(Text(f"{row.id or 'no id'}   candidate {row.index} of cycle {row.cycle} of {row.run}", style="bold"))
    console.print(_facts(dossier))
    if prompt:
        console.rule("prompt", align="left")
        console.print(Text(row.prompt), soft_wrap=True)
    console.rule("program, as written" if row.mode != "delta" else "program, as the edit made it", align="left")
    if console.is_terminal:
        console.print(Syntax(row.code, "python", background_color="default", word_wrap=True))
    else:
        console.print(Text(row.code), soft_wrap=True)
    if row.patch:
        console.rule("the edit, as written", align="left")
        console.print(Text(row.patch), soft_wrap=True)
    for evaluation in dossier.evaluations:
        if evaluation.output:
            console.rule("printed", align="left")
            console.print(Text(evaluation.output), soft_wrap=True)  # a program's words: never taken for markup


def _facts(dossier: Dossier) -> Table:
    row = dossier.row
    facts = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("outcome", _outcome(dossier))
    if row.outcome is Outcome.DUPLICATE:
        facts.add_row("duplicate of", f"{row.duplicate_of}, similarity {row.similarity:.3f} ({row.duplicate_view})")
    for evaluation in dossier.evaluations:
        epochs = "1 epoch" if evaluation.epochs == 1 else f"{evaluation.epochs} epochs"
        loss = "" if evaluation.loss is None else f", loss {evaluation.loss:.3f}"
        number = f"{percent(evaluation.accuracy)}{loss}" if evaluation.accuracy is not None else evaluation.outcome
        facts.add_row(
            "measured",
            f"{number} on {evaluation.dataset} ({_purpose(evaluation)}) after {epochs}, "
            f"protocol {evaluation.protocol}, seed {evaluation.seed}, {evaluation.seconds:.2f} s"
            f"{_containment(evaluation)}",
        )
    if row.parameters is not None and row.flops is not None:
        depth = "" if row.depth is None else f", depth {row.depth}"
        facts.add_row("size", f"{row.parameters:,} parameters, {row.flops:,} FLOPs an image{depth}, graph {row.graph}")
    if row.latency_ms is not None:
        facts.add_row("latency", f"{row.latency_ms:.3g} ms for one image, as the program's own process measured it")
    facts.add_row("written by", _author(dossier))
    if row.mode == "full":
        facts.add_row("shown to it", _list(dossier.parents) or "no earlier candidate")
    else:
        facts.add_row("edit of", _list(dossier.parents) or ", ".join(row.parent_ids))
        facts.add_row("asked for", WANTED[row.wanted])
    if dossier.children:
        facts.add_row("shown for", _list(dossier.children))
    if dossier.duplicates:
        places = ", ".join(f"{one.cycle}/{one.index}" for one in dossier.duplicates)
        facts.add_row("written again", f"{len(dossier.duplicates)} times: {places}")
    for line in row.dropped:
        facts.add_row("left out", Text(line))
    facts.add_row("took", f"{duration(row.generation_seconds)} to write, {row.seconds:.2f} s to check and evaluate")
    return facts


def _outcome(dossier: Dossier) -> Text:
    row = dossier.row
    if row.outcome is Outcome.VALID:
        words = f"valid, {percent(row.accuracy)}"
        if dossier.rank is not None:
            words += f", rank {dossier.rank} of {dossier.ranked}"
        return Text(words + (f", {dossier.standing}" if dossier.standing else ""), style="green")
    kind = f" ({row.error_type})" if row.error_type else ""
    return Text(f"{row.outcome} at {row.stage}{kind}: {row.detail}", style="yellow")


def _purpose(evaluation: EvaluationRow) -> str:
    return evaluation.split if evaluation.purpose == "search" else f"{evaluation.split}, {evaluation.purpose}"


def _containment(evaluation: EvaluationRow) -> str:
    return f", tier {evaluation.tier}" if evaluation.tier else ""


def _author(dossier: Dossier) -> str:
    row, teacher = dossier.row, dossier.teacher
    model = "the base model"
    if row.adapter:
        model = f"adapter {row.adapter}"
        if teacher is not None:
            model += f", fine-tuned after cycle {teacher.cycle} on {len(teacher.training_ids)} programs"
    return f"{model} ({row.engine}), {row.completion_tokens} tokens, seed {row.seed}, ended by {row.finish_reason}"


def _list(rows: Iterable[CandidateRow]) -> str:
    return ", ".join(f"{row.id[:ID_DIGITS]} ({percent(row.accuracy)}, cycle {row.cycle})" for row in rows)


if __name__ == "__main__":
    from jobs.cli import main

    main(["show", *sys.argv[1:]])
