"""Evaluate a run's elites on other data sets by the same protocol: does what was found on one hold on another?

    nas-ray transfer RUN --to fashion-mnist,cifar10
    nas-ray transfer RUN --to folder=/my/images --top 20 --seeds 3
    python -m jobs.transfer RUN --to fashion-mnist                                  (the same, for `ray job submit`)

In: a run folder and names of data sets. Out: rows of the purpose `transfer` in the run's own tables, a table of the
candidates, and how far the data sets agree on their order. What is there already is not measured again.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.containment import Unsafe, lower_floor
from jobs.reevaluation import reevaluate
from jobs.tables import ID_DIGITS, open_console, percent
from nas_ray.interval import Interval
from nas_ray.outcome import Outcome
from nas_ray.rank_correlation import FEWEST
from nas_ray.reevaluation import load_targets, read_scores
from nas_ray.schema import CandidateRow
from nas_ray.store import Store, find_run
from nas_ray.transfer import Transfer, change_conditions, choose_elites, plan_targets

SHOWN = 20  # candidates in the table


def transfer_command(
    run: Annotated[str, typer.Argument(help="Run folder, its name under runs/, or an address (s3://...).")],
    to: Annotated[
        str, typer.Option("--to", metavar="NAME[=ROOT],...", help="Data sets, with a folder where it is not the usual.")
    ],
    top: Annotated[int | None, typer.Option(min=1, help="Only the best N elites.", metavar="N")] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="N other elites, drawn at random; alone or with --top.", metavar="N")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each candidate on each data set.")] = 1,
    remeasure: Annotated[
        bool,
        typer.Option(help="Measure the run's own data set too, from fresh seeds: luck helped to choose."),
    ] = True,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change one key for this: dataset.train_limit=6000."),
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="Candidates in the table.")] = SHOWN,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object instead.")] = False,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join; else RAY_ADDRESS, or a local one.")] = None,
    unsafe: Unsafe = False,
) -> None:
    """Evaluate a run's elites on other data sets by the same protocol, and compare the orders.

    Example:  nas-ray transfer runs/search --to fashion-mnist --top 50 --set dataset.train_limit=6000
    """
    store = Store.open(find_run(run))
    used = change_conditions(store.config, overrides or ())
    targets = plan_targets(store.config, used, to.split(","), seeds, remeasure)
    datasets = load_targets(targets, used.protocol.resolution)
    candidates = choose_elites(store.candidates(), store.cycles(), top, sample)
    ids = [row.id for row in candidates]
    with closing(store):
        store.recover()  # takes the lock, so that a running search is left alone
        scores = read_scores(store.evaluations(), ids, targets)
        work = [(row, scores[row.id, target.name]) for target in targets for row in candidates]
        console = Console(stderr=True) if as_json else None
        lost = reevaluate(store, lower_floor(used, unsafe), work, datasets, address, console)
        scores = read_scores(store.evaluations(), ids, targets)
    transfer = Transfer(tuple(candidates), tuple(targets), scores, store.config.protocol.digest)
    if as_json:
        typer.echo(json.dumps({"run": store.folder, **transfer.as_values(), "lost": lost}, indent=2))
    else:
        print_transfer(transfer, lost, open_console(), show)


def print_transfer(transfer: Transfer, lost: list[str], console: Console, shown: int = SHOWN) -> None:
    """Candidates, failures, and how far the data sets agree."""
    if shown:
        console.print()
        console.print(_candidates(transfer, shown))
        if len(transfer.candidates) > shown:
            console.print(f"{shown} of {len(transfer.candidates)}; all of them with --show or --json.")
    console.print()
    console.print(_data_sets(transfer))
    console.print()
    console.print(_correlations(transfer))
    seeds = len(transfer.targets[0].seeds)
    lines = [
        f"Accuracy: validation split, mean over {seeds} seed{'s' if seeds > 1 else ''} from "
        f"{transfer.targets[0].seeds[0]}. Rank 1 is the best. The column `search` is what the elites were chosen by.",
        "Correlations: over the n candidates that both have a number for; in brackets 95 % of a bootstrap over them. "
        f"Fewer than {FEWEST} are not enough.",
    ]
    lines += [f"The engine lost {one}. Run the command again." for one in lost]
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _candidates(transfer: Transfer, shown: int) -> Table:
    table = _table(["id"], [word for column in transfer.columns for word in (column, "rank")], ["outcome"])
    accuracies = {column: transfer.accuracies(column) for column in transfer.columns}
    ranks = {column: transfer.ranks(column) for column in transfer.columns}
    for number, row in enumerate(transfer.candidates[:shown]):
        cells = [
            text
            for column in transfer.columns
            for text in (percent(accuracies[column][number]), str(ranks[column][number] or "-"))
        ]
        table.add_row(row.id[:ID_DIGITS], *cells, Text(_outcome(transfer, row)))
    return table


def _outcome(transfer: Transfer, row: CandidateRow) -> str:
    """`valid`, or each data set on which it is not, with the reason."""
    words = []
    for target in transfer.targets:
        score = transfer.scores[row.id, target.name]
        if score.outcome is None:
            words.append(f"{target.name}: not measured")
        elif score.failure is not None:
            words.append(f"{target.name}: {score.failure.outcome}, {score.failure.detail}")
    return "; ".join(words) or Outcome.VALID


def _data_sets(transfer: Transfer) -> Table:
    """One line for each data set: how the candidates ended there."""
    table = _table(["data set"], ["valid", "mean", "best", "against the search, points"], ["others"])
    for target in transfer.targets:
        outcomes = transfer.outcomes(target.name)
        there = [accuracy for accuracy in transfer.accuracies(target.name) if accuracy is not None]
        table.add_row(
            target.name,
            f"{outcomes[Outcome.VALID]} of {len(transfer.candidates)}",
            percent(sum(there) / len(there) if there else None),
            percent(max(there, default=None)),
            _interval(transfer.shift(target), 100, 1),
            ", ".join(f"{count} {one}" for one, count in outcomes.most_common() if one is not Outcome.VALID) or "none",
        )
    return table


def _correlations(transfer: Transfer) -> Table:
    table = _table(["data sets"], ["n", "Spearman's rho [95 %]", "Kendall's tau-b [95 %]"], [])
    for first, second, correlation in transfer.compare():
        missing = "not enough" if correlation.count < FEWEST else "one side all equal"
        numbers = [_interval(one, 1, 2) if one else missing for one in (correlation.spearman, correlation.kendall)]
        table.add_row(f"{first} - {second}", str(correlation.count), *numbers)
    return table


def _interval(interval: Interval | None, scale: float, digits: int) -> str:
    if interval is None:
        return "-"
    low, estimate, high = (f"{scale * value:.{digits}f}" for value in interval)
    return f"{estimate} [{low}, {high}]" if interval.low == interval.low else f"{estimate} [one value]"


def _table(left: list[str], right: list[str], last: list[str]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1))
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    for name in last:
        table.add_column(name, overflow="fold")
    return table


if __name__ == "__main__":
    from jobs.cli import main

    main(["transfer", *sys.argv[1:]])
