"""report.html: a whole run on one page that opens anywhere, without a network, a server or a script.

In: a `Store`. Out: `report.html` in the run folder: what held the candidates in, the loop's effect cycle by cycle with
95 % intervals, the funnel, how candidates ended, where the time went, what fine-tuning taught, the diagnosis, the final
round, the best candidates with their code, the configuration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import Any

import pyarrow as pa
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from nas_ray.chart import Series, draw_lines
from nas_ray.config_file import dump_config
from nas_ray.corpus_comparison import describe_corpus
from nas_ray.diagnostics import Diagnosis, diagnose
from nas_ray.final_round import FinalRound, read_rounds
from nas_ray.funnel import STEPS, check_accounting
from nas_ray.interval import Interval
from nas_ray.leaderboard import WINNERS_CURSE, pareto_front, rank
from nas_ray.nodes import describe_nodes
from nas_ray.outcome import Outcome
from nas_ray.progress import CycleProgress, Progress, measure_progress
from nas_ray.run_table import RunTable
from nas_ray.scatter import draw_scatter
from nas_ray.schema import CandidateRow, CycleRow
from nas_ray.store import Store

NAME = "report.html"
TOP = 10
PHASES = ("generate", "check", "evaluate", "finetune", "waiting", "total")


def write_report(store: Store) -> str:
    """Write a run's report, also of one that is not finished, and return its path or address."""
    page = render_report(store)
    store.place.prepare(NAME, pa.py_buffer(page.encode()))()
    return store.place.address(NAME)


def render_report(store: Store) -> str:
    """The page as text."""
    progress, rows = measure_progress(store), store.candidates()
    config = store.config
    title = f"{config.name}: {config.dataset.name}, {config.model.path} model"
    sections = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{_standing(progress, rows)}</p>",
        f"<p>{escape(describe_nodes(store.nodes()))}</p>",
        *([f"<p>{escape(corpus)}</p>"] if (corpus := describe_corpus(store)) else []),
        *(f'<p class="problem">The accounts do not add up: {escape(line)}.</p>' for line in check_accounting(store)),
        "<h2>Does the loop learn?</h2>",
        draw_lines(_learning_curves(progress.cycles), "valid rate, mean and best accuracy by cycle"),
        "<p>Bars are 95 % intervals: Wilson's for the valid rate (valid share of all candidates that the generator "
        "answers for), Student's t for the mean over the valid ones. Accuracy is that of the validation split.</p>",
        "<h2>Funnel</h2>",
        _funnel_table(progress.cycles),
        "<h2>How candidates ended</h2>",
        _outcome_table(progress.cycles),
        "<h2>Where the time went, seconds</h2>",
        _time_table([one.row for one in progress.cycles if one.row]),
        "<p>Phases overlap, so they may add up to more than the total; waiting is when none was at work.</p>",
        "<h2>What fine-tuning taught, nats a program</h2>",
        _lesson_table([one.row for one in progress.cycles if one.row]),
        "<p>Mean negative log-likelihood under the generation prompt, before and after. A gain on the training elites "
        "alone is memorising; a gain on held-out elites is learning.</p>",
        "<h2>Diagnosis</h2>",
        *_diagnosis(diagnose(RunTable.read(store))),
        *_final_rounds(read_rounds(store)),
        *_pareto_plots(rows, config.selection.goals[1:] or ("parameters",)),
        f"<h2>Best {min(TOP, len(rank(rows)))} candidates</h2>",
        f"<p>{escape(WINNERS_CURSE)}</p>",
        *(_candidate(number, row) for number, row in enumerate(rank(rows, TOP), start=1)),
        f"<h2>Configuration</h2><details><summary>config.yaml</summary><pre>{escape(dump_config(config))}</pre></details>",
    ]
    style = files("nas_ray").joinpath("templates/report.css").read_text(encoding="utf-8")
    colours = HtmlFormatter(style="default").get_style_defs(".code")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}\n{colours}</style></head>\n<body><main>\n"
        + "\n".join(sections)
        + "\n</main></body></html>\n"
    )


def _standing(progress: Progress, rows: Sequence[CandidateRow]) -> str:
    words = f"{progress.finished_cycles} of {progress.wanted_cycles} cycles finished, {len(rows):,} candidates. "
    if progress.best is None or progress.best.accuracy is None:
        return words + "No valid candidate yet."
    best = progress.best
    return words + f"Best: <code>{best.id}</code> with {100 * progress.best.accuracy:.2f} % from cycle {best.cycle}."


def _learning_curves(cycles: Iterable[CycleProgress]) -> list[Series]:
    cycles = list(cycles)
    best = [(one.cycle, Interval(b, b, b) if (b := one.best_so_far) is not None else None) for one in cycles]
    return [
        Series("valid rate", [(one.cycle, one.valid_rate) for one in cycles]),
        Series("mean accuracy of valid candidates", [(one.cycle, one.accuracy) for one in cycles]),
        Series("best accuracy so far", best),
    ]


def _funnel_table(cycles: Sequence[CycleProgress]) -> str:
    lines = []
    for one in cycles:
        counts = [count for _, count in one.funnel.steps]
        cells = [_bar(count, counts[0]) for count in counts]
        if one.row is None:
            cells[-1] = "-"
        rate, mean = _interval(one.valid_rate), _interval(one.accuracy)
        lines.append([str(one.cycle), *cells, str(one.funnel.top_up), str(one.funnel.lost), rate, mean])
    return _table(["cycle", *STEPS, "top-up", "lost", "valid rate, %", "mean accuracy, %"], lines)


def _outcome_table(cycles: Sequence[CycleProgress]) -> str:
    totals: Counter[Outcome] = Counter()
    for one in cycles:
        totals.update(one.funnel.outcomes)
    lines = [
        [outcome, *(str(one.funnel.outcomes.get(outcome, 0) or "") for one in cycles), _bar(count, totals.total())]
        for outcome, count in totals.most_common()
    ]
    return _table(["outcome", *(str(one.cycle) for one in cycles), "all"], lines)


def _time_table(rows: Sequence[CycleRow]) -> str:
    lines = []
    for row in rows:
        seconds = [getattr(row, f"{phase}_seconds") for phase in PHASES]
        speed = f"{row.tokens_per_second:,.0f}"
        lines.append([str(row.cycle), *(_bar(value, row.total_seconds, ".1f") for value in seconds), speed])
    return _table(["cycle", *PHASES, "tokens/s"], lines)


def _diagnosis(diagnosis: Diagnosis) -> list[str]:
    """What the theory's diagnostics say, and what to change."""
    lines = [
        [one.id, one.verdict, *map(escape, (one.question, one.finding, one.advice))] for one in diagnosis.diagnostics
    ]
    table = _table(["", "verdict", "question", "what it means", "what to change"], lines)
    return [f"<p>{escape(diagnosis.headline)}</p>", f"<details><summary>D1 to D17</summary>{table}</details>"]


def _lesson_table(rows: Sequence[CycleRow]) -> str:
    lines = []
    for row in rows:
        numbers = (row.nll_before_train, row.nll_after_train, row.nll_before_held_out, row.nll_after_held_out)
        means = [f"{sum(values) / len(values):.2f}" if values else "-" for values in numbers]
        lines.append([str(row.cycle), str(len(row.training_ids)), *means[:2], str(len(row.held_out_ids)), *means[2:],
                      str(row.adapter)])  # fmt: skip
    head = ["cycle", "training elites", "before", "after", "held-out elites", "before", "after", "next adapter"]
    return _table(head, lines)


def _final_rounds(rounds: Sequence[FinalRound]) -> list[str]:
    """The last final round's finalists, best on validation first, and how many rounds there were."""
    if not rounds:
        return []
    final = rounds[-1]
    lines = [
        [
            escape(one.score.target.name),
            f"<code>{one.candidate.id}</code>",
            f"{100 * (one.candidate.accuracy or 0.0):.1f}",
            _interval(one.validation),
            _interval(one.test),
            "; ".join(_interval(training) for training in one.trainings) or one.score.outcome or "not measured",
        ]
        for one in final.finalists
    ]
    head = ["data set", "id", "in the search, %", "validation, %", "test, %", "each training on the test split, %"]
    looks = "once" if len(rounds) == 1 else f"{len(rounds)} times"
    return [
        "<h2>Final round: test accuracy</h2>",
        _table(head, lines),
        f"<p>{final.row.epochs} epochs from {len(final.row.seeds)} seeds. Means with Student's t intervals over the "
        "seeds, each training with Wilson's over the test images. The best on validation comes first: the test split "
        f"chooses nothing. It was looked at {looks}.</p>",
    ]


def _pareto_plots(rows: Sequence[CandidateRow], costs: Sequence[str]) -> list[str]:
    """A picture of accuracy against each cost that the run has numbers of, with the front of the two."""
    ranked = rank(rows)
    plots = [draw_scatter(ranked, pareto_front(ranked, ("accuracy", cost)), cost) for cost in costs]
    return ["<h2>Accuracy against cost</h2>", *plots] if any(plots) else []


def _candidate(number: int, row: CandidateRow) -> str:
    assert row.accuracy is not None  # ranked candidates have one
    size = f"{row.parameters:,} parameters" if row.parameters is not None else ""
    head = f"{number}. <code>{escape(row.id)}</code> {100 * row.accuracy:.2f} %, cycle {row.cycle}, {size}"
    parents = f"<p>Shown in its prompt: {escape(', '.join(row.parent_ids))}</p>" if row.parent_ids else ""
    code = highlight(row.code, PythonLexer(), HtmlFormatter(cssclass="code"))
    return f"<details{' open' if number == 1 else ''}><summary>{head}</summary>{parents}{code}</details>"


def _bar(value: float, whole: float, form: str = "d") -> str:
    """A number with its share of `whole` drawn behind it."""
    share = 100 * value / whole if whole else 0.0
    return f'<span class="bar" style="--share:{share:.1f}%">{value:{form}}</span>'


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    bounds = f" [{100 * interval.low:.1f}, {100 * interval.high:.1f}]" if interval.low == interval.low else ""
    return f"{100 * interval.estimate:.1f}{bounds}"


def _table(head: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """Cells are HTML already; all texts from a run that come here are words of this project."""
    columns = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>'
