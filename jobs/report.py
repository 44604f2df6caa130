"""A run's report, written again.

    nas-ray report runs/search
    python -m jobs.report runs/search                                            (the same)

In: a run folder, finished or not. Out: its report.html. A search writes one by itself when it ends.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from nas_ray.report import write_report
from nas_ray.store import Store, find_run


def report_command(
    run: Annotated[str, typer.Argument(help="Run folder, its name under runs/, or an address (s3://...).")],
) -> None:
    """Write a run's report.html: one page with charts, funnel, outcomes and the best candidates' code.

    Example: nas-ray report runs/search
    """
    typer.echo(write_report(Store.open(find_run(run))))


if __name__ == "__main__":
    from jobs.cli import main

    main(["report", *sys.argv[1:]])
