"""Any program file the way of a generated candidate: parsed, checked, built, trained, graded, all of it as written.

    nas-ray check my_net.py
    nas-ray check nets/*.py --dataset cifar10 --epochs 1 --json

In: Python files with a `class Net(nn.Module)`. Out: one line (or JSON object) for each on standard output, as it is
judged, and the walls that it ran behind on standard error. Exit code 0 when every file was judged, whatever became of
it; 1 where the engine could not judge one; 2 for a mistake in the input. Needs no Ray and no language model.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from jobs.containment import Unsafe, lower_floor
from jobs.tables import percent
from nas_ray.config import RunConfig
from nas_ray.config_file import load_config
from nas_ray.datasets import load_dataset
from nas_ray.judgement import Judgement, judge_program
from nas_ray.outcome import Outcome
from nas_ray.program import read_program
from nas_ray.sandbox import Sandbox
from nas_ray.sandbox.launcher import ZygoteLost

MAX_LINE = 200  # characters of what a line says about a file
WALLED = "B"  # the weakest tier whose walls judge a program by what it does


class CheckError(Exception):
    """Files that cannot be read: which ones and why."""


def check_command(
    files: Annotated[list[Path], typer.Argument(help="Program files.", metavar="FILE...")],
    dataset: Annotated[str, typer.Option(help="Data set to train and grade on.")] = "digits",
    protocol: Annotated[
        str, typer.Option(help="fixed, or candidate: by the program's own train_setup and learn.")
    ] = "fixed",
    epochs: Annotated[int, typer.Option(help="Training passes.")] = 5,
    time_limit: Annotated[
        float | None, typer.Option(help="Seconds for the build, and for the training.", metavar="SECONDS")
    ] = None,
    memory_limit: Annotated[float | None, typer.Option(help="Memory of a program, GiB.", metavar="GB")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any other key of the configuration.", metavar="KEY=VALUE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object for each file.")] = False,
    unsafe: Unsafe = False,
) -> None:
    """Judge program files of your own like generated candidates: outcome and accuracy.

    Examples: nas-ray check my_net.py   |   nas-ray check nets/*.py --dataset cifar10 --set budget.parameters=2000000
    """
    values = {"dataset.name": dataset, "protocol.kind": protocol, "protocol.epochs": epochs}
    if time_limit is not None:
        values |= {"budget.build_seconds": time_limit, "budget.train_seconds": time_limit}
    if memory_limit is not None:
        values |= {"budget.memory_gib": memory_limit}
    config = load_config(None, [*(f"{key}={json.dumps(value)}" for key, value in values.items()), *(settings or ())])
    texts = read_files(files)
    judged = check_files(texts, lower_floor(config, unsafe), as_json)
    if not judged:
        raise typer.Exit(1)


def read_files(files: Sequence[Path]) -> dict[Path, str]:
    """The texts of all files. Raises `CheckError` naming every one that cannot be read."""
    texts, problems = {}, []
    for file in files:
        try:
            texts[file] = file.read_text(encoding="utf-8-sig")
        except OSError as error:
            problems.append(f"{file}: {error.strerror or error}")
        except UnicodeDecodeError as error:
            problems.append(f"{file}: not UTF-8 text (byte {error.start})")
    if problems:
        count = "1 file" if len(problems) == 1 else f"{len(problems)} files"
        raise CheckError(f"cannot read {count}:" + "".join(f"\n  - {_printable(one)}" for one in problems))
    return texts


def check_files(texts: dict[Path, str], config: RunConfig, as_json: bool = False) -> bool:
    """Judge every program and print the judgement. False where the engine failed on one, or did not start."""
    dataset = load_dataset(config.dataset, config.protocol.resolution)
    width = max(len(_printable(str(file))) for file in texts)
    judged = True
    try:
        with Sandbox("cpu", dataset, config.protocol, config.budget, containment=config.containment) as sandbox:
            sandbox.wait_until_ready()
            typer.echo(f"walls: {sandbox.walls.describe()}", err=True)
            screens = config.containment.screens and sandbox.walls.tier > WALLED
            for file, text in texts.items():
                judgement = judge_program(read_program(text), sandbox, dataset, screens)
                typer.echo(_json(file, judgement) if as_json else _line(file, judgement, width))
                judged = judged and judgement.outcome is not Outcome.SANDBOX_ERROR
    except ZygoteLost as error:
        typer.echo(_printable(f"Error: the sandbox could not start: {error}"), err=True)
        return False
    return judged


def _json(file: Path, judgement: Judgement) -> str:
    return json.dumps(
        {
            "file": str(file),
            "outcome": judgement.outcome,
            "detail": judgement.detail,
            "accuracy": judgement.accuracy,
            "seconds": round(judgement.seconds, 3),
            "stage": judgement.stage,
            "error_type": judgement.error_type,
        }
    )


def _line(file: Path, judgement: Judgement, width: int) -> str:
    """The file, the seconds, and what became of it, in one line."""
    if judgement.outcome is Outcome.VALID:
        told = percent(judgement.accuracy)
    else:
        told = ", ".join(part for part in (judgement.error_type, judgement.detail) if part)
    words = _printable(f"{judgement.outcome}: {told}")
    if len(words) > MAX_LINE:
        words = f"{words[: MAX_LINE - 1]}…"
    return f"{_printable(str(file)):<{width}}  {judgement.seconds:6.2f} s  {words}"


def _printable(text: str) -> str:
    """`text` on one line, without what a terminal would obey or cannot show."""
    return "".join(character if character.isprintable() else " " for character in text)


if __name__ == "__main__":
    from jobs.cli import main

    main(["check", *sys.argv[1:]])
