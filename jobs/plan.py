"""Before a search: what to set for a budget, why, and what to expect of it.

    nas-ray plan --trainings 1100 --target 0.9
    nas-ray plan --pilot runs/search --hours 8
    nas-ray plan --config my_search.yaml --trainings 5000 --elite-rate 0.05:0.15 --smoothing 0.1:0.3 --json
    nas-ray plan --pilot runs/search --why                           (with the formula of each number)
    python -m jobs.plan --trainings 1100                                         (the same)

In: a configuration, a budget, and numbers: said (one, or LOW:HIGH), measured by a pilot run, or built-in guesses. Out:
a table of settings, predictions with intervals, warnings, and what to give to `nas-ray search`. Nothing is started or
written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.tables import open_console, percent_interval
from nas_ray.config import RunConfig
from nas_ray.config_file import load_config, override_config
from nas_ray.forecast import Checked, check_forecast
from nas_ray.guesses import Guesses, Known
from nas_ray.interval import Interval
from nas_ray.plan import Plan, make_plan
from nas_ray.predictions import Prediction
from nas_ray.run_table import RunTable
from nas_ray.sizing import PlanError, Wishes
from nas_ray.store import Store, find_run


class Quantity(NamedTuple):
    """A number that may be said with its uncertainty."""

    field: str  # of `Guesses`
    option: str
    most: float  # largest possible value; the smallest is 0, which is allowed for the smoothing alone


QUANTITIES = (
    Quantity("elite_rate", "--elite-rate", 1.0),
    Quantity("valid_rate", "--valid-rate", 1.0),
    Quantity("novel_rate", "--novel-rate", 1.0),
    Quantity("smoothing", "--smoothing", 1.0),
    Quantity("reliability", "--reliability", 1.0),
    Quantity("seconds", "--seconds", math.inf),
    Quantity("noise_sd", "--noise-sd", 0.5),
    Quantity("bar", "--bar", 1.0),
)
RANGE = "X or LOW:HIGH"


def plan_command(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML file; else the pilot's, else all defaults.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change one key of the configuration.")
    ] = None,
    pilot: Annotated[str | None, typer.Option(metavar="RUN", help="A run to measure the numbers below on.")] = None,
    pilot_cycles: Annotated[
        int | None,
        typer.Option(min=1, help="Only its first N cycles; the others then check the forecast.", metavar="N"),
    ] = None,
    trainings: Annotated[
        int | None, typer.Option(help="Budget: trainings of one program; else what the configuration costs.")
    ] = None,
    hours: Annotated[float | None, typer.Option(help="Budget: wall time, with --seconds or a pilot.")] = None,
    cycles: Annotated[int | None, typer.Option(help="Cycles; else as many as the target needs.")] = None,
    target: Annotated[float, typer.Option(help="Elites among all programs written, to be reached.")] = 0.9,
    family: Annotated[float, typer.Option(help="A rare family's share of the first programs, to be seen.")] = 0.001,
    miss: Annotated[float, typer.Option(help="Chance of a failure that is small enough.")] = 0.05,
    elite_rate: Annotated[
        str | None, typer.Option(metavar=RANGE, help="Elites among the first cycle's programs.")
    ] = None,
    valid_rate: Annotated[str | None, typer.Option(metavar=RANGE, help="Valid ones among all programs.")] = None,
    novel_rate: Annotated[str | None, typer.Option(metavar=RANGE, help="New ones among the valid programs.")] = None,
    smoothing: Annotated[
        str | None, typer.Option(metavar=RANGE, help="a: weight of the elites in the next cycle's writer.")
    ] = None,
    reliability: Annotated[
        str | None, typer.Option(metavar=RANGE, help="R: correlation of accuracies from two seeds.")
    ] = None,
    seconds: Annotated[
        str | None, typer.Option(metavar=RANGE, help="Wall time of a training, with its share of all else.")
    ] = None,
    noise_sd: Annotated[
        str | None, typer.Option(metavar=RANGE, help="Spread of one program's accuracies over seeds, 0 to 0.5.")
    ] = None,
    bar: Annotated[str | None, typer.Option(metavar="X", help="Accuracy of an elite; else the pilot's bar.")] = None,
    why: Annotated[bool, typer.Option("--why", help="Say for each setting and prediction how it was found.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object instead.")] = False,
) -> None:
    """Plan a search: what to set for a budget, why, and what to expect. Starts nothing.

    Examples: nas-ray plan --trainings 1100   |   nas-ray plan --pilot runs/search --hours 8 --target 0.8
    """
    texts = {
        "elite_rate": elite_rate, "valid_rate": valid_rate, "novel_rate": novel_rate, "smoothing": smoothing,
        "reliability": reliability, "seconds": seconds, "noise_sd": noise_sd, "bar": bar,
    }  # fmt: skip
    said, mistakes = parse_said(texts)
    if pilot_cycles is not None and pilot is None:
        mistakes.append("--pilot-cycles needs --pilot: which run's cycles are meant?")
    if "bar" in said and said["bar"].low < said["bar"].high:
        mistakes.append(f"--bar {texts['bar']}: one number; elites of a range cannot be counted")
    table = RunTable.read(Store.open(find_run(pilot))) if pilot is not None else None
    if table is not None and not table.cycles:
        mistakes.append(f"--pilot {pilot}: no cycle of it is closed yet, so there is nothing to measure")
    settings = _configure(config, overrides or (), table)
    wishes = Wishes(trainings=trainings, hours=hours, cycles=cycles, target=target, family=family, miss=miss)
    named = said["bar"].estimate if "bar" in said else None
    measured = Guesses.of(shorten(table, pilot_cycles), named) if table is not None and table.cycles else Guesses()
    try:
        plan = make_plan(settings, measured.overrule(said), wishes)
    except PlanError as error:
        raise PlanError([*mistakes, *error.mistakes]) from error
    if mistakes:
        raise PlanError(mistakes)
    checked = check_forecast(plan.sizes.forecast, table) if table is not None else []
    if as_json:
        values = plan.as_values() | {"checked": [_plain_check(one) for one in checked]}
        typer.echo(json.dumps(values, indent=2))
    else:
        print_plan(plan, checked, config, why, open_console())


def _plain_check(one: Checked) -> dict[str, Any]:
    intervals = {"forecast": one.forecast.as_values(), "counted": one.counted.as_values()}
    return one._asdict() | intervals | {"held": one.held}


def parse_said(texts: Mapping[str, str | None]) -> tuple[dict[str, Interval], list[str]]:
    """What a person said, by `Guesses`' names, and all mistakes in it. The estimate of a range is its middle."""
    said, mistakes = {}, []
    for quantity in QUANTITIES:
        text = texts[quantity.field]
        if text is None:
            continue
        try:
            ends = [float(part) for part in text.split(":")]
        except ValueError:
            ends = []
        if len(ends) not in (1, 2):
            mistakes.append(f"{quantity.option} {text}: write one number, or LOW:HIGH, for example 0.1:0.3")
            continue
        low, high = ends[0], ends[-1]
        zero = quantity.field == "smoothing"
        if not (low <= high and (low > 0 or (zero and low == 0)) and high <= quantity.most and math.isfinite(high)):
            limit = "" if math.isinf(quantity.most) else f" and at most {quantity.most:g}"
            order = ", LOW not over HIGH" if len(ends) == 2 else ""
            mistakes.append(f"{quantity.option} {text}: must be {'at least' if zero else 'over'} 0{limit}{order}")
            continue
        said[quantity.field] = Interval(low, (low + high) / 2, high)
    return said, mistakes


def shorten(table: RunTable, cycles: int | None) -> RunTable:
    """The first `cycles` closed cycles of a run; None: all of them."""
    return RunTable.of(table.config, table.candidates, table.cycles[:cycles], table.evaluations)


def _configure(source: Path | None, overrides: Sequence[str], table: RunTable | None) -> RunConfig:
    if source is None and table is not None:
        return override_config(table.config, overrides)
    return load_config(source, overrides)


def print_plan(plan: Plan, checked: Sequence[Checked], source: Path | None, why: bool, console: Console) -> None:
    """What is known, what to set, what to expect, what to paste; `why`: with a formula for each."""
    for table in (_known(plan), _settings(plan, why), _predictions(plan, why)):
        console.print()
        console.print(table)
    for one in plan.predictions:
        if one.warning:
            console.print(Text(f"! {one.subject}: {one.warning}", style="yellow"), soft_wrap=True)
    if checked:
        console.print()
        console.print(_checks(checked))
        console.print(Text(describe_checks(checked)), soft_wrap=True)
    console.print()
    for note in plan.notes:
        console.print(Text(f"- {note}"), soft_wrap=True)
    console.print()
    start = f"nas-ray search --config {source}" if source is not None else "nas-ray search"
    changes = " ".join(f"--set {one}" for one in plan.overrides)
    console.print(Text(f"{start} {changes}" if changes else f"Nothing to change: {start}"), soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1), title=title, title_justify="left")
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name in ("key", "now", "value", "range"))
    return table


def _known(plan: Plan) -> Table:
    table = _table("Known", "number", "value", "from", "how")
    for name, known in plan.known.items():
        table.add_row(name.replace("_", " "), describe_known(known), known.source, Text(known.note))
    return table


def _settings(plan: Plan, why: bool) -> Table:
    reasons = ("why",) if why else ()
    table = _table(f"Settings for {plan.sizes.trainings:,} trainings", "key", "now", "advised", *reasons)
    for one in plan.settings:
        advised = Text(str(one.advised), style="bold") if one.changes else Text("as it is", style="dim")
        table.add_row(one.key, str(one.now), advised, *([Text(one.why)] if why else []))
    return table


def _predictions(plan: Plan, why: bool) -> Table:
    table = _table("Expected", "what", "value", *(("why",) if why else ()))
    for one in plan.predictions:
        table.add_row(Text(one.subject), describe_prediction(one), *([Text(one.why)] if why else []))
    return table


def _checks(checked: Sequence[Checked]) -> Table:
    table = _table(
        "The forecast and the cycles after the pilot", "cycle", "forecast, %", "counted, %", "", "logistic, %"
    )
    for one in checked:
        word = "" if one.held else ("above" if one.counted.estimate > one.forecast.high else "below")
        table.add_row(
            str(one.cycle), percent_interval(one.forecast), percent_interval(one.counted), word, _bare(one.logistic)
        )
    return table


def describe_checks(checked: Sequence[Checked]) -> str:
    """One sentence on how far the forecast held, and against standing still."""
    held = sum(one.held for one in checked)
    wrong = _distance(checked, [one.forecast.estimate for one in checked])
    still = _distance(checked, [one.frozen for one in checked])
    logistic = [one.logistic for one in checked if one.logistic is not None]
    other = f", {_distance(checked, logistic):.1f} the logistic law" if len(logistic) == len(checked) else ""
    return (
        f"{held} of {len(checked)} later cycles lie within the forecast's bounds, which hold the noise of counting. "
        f"Mean distance {wrong:.1f} points{other}, {still:.1f} that nothing changes after the pilot."
    )


def _distance(checked: Sequence[Checked], shares: Sequence[float]) -> float:
    """Mean distance of forecast shares from the counted ones, points of per cent."""
    pairs = zip(checked, shares, strict=True)
    return 100 * sum(abs(share - one.counted.estimate) for one, share in pairs) / len(checked)


def _bare(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def describe_known(known: Known) -> str:
    """`0.2 [0.1, 0.3]`, without brackets where there is no uncertainty."""
    if known.low == known.high:
        return f"{known.estimate:.3g}"
    return f"{known.estimate:.3g} [{known.low:.3g}, {known.high:.3g}]"


def describe_prediction(one: Prediction) -> str:
    """Estimate, bounds and unit; words where something is infinite."""
    if math.isinf(one.value.low):
        return "no limit" if one.unit in ("sd", "cycles") and not one.warning else "not bounded"
    scale, unit = (100.0, "%") if one.unit in ("share", "accuracy") else (1.0, one.unit)

    def text(value: float) -> str:
        return "no limit" if math.isinf(value) else f"{scale * value:,.3g}" if value < 1000 else f"{value:,.0f}"

    low, estimate, high = map(text, one.value)
    return f"{estimate} {unit}" if low == high else f"{estimate} [{low}, {high}] {unit}"


if __name__ == "__main__":
    import sys

    from jobs.cli import main

    main(["plan", *sys.argv[1:]])
