"""The report is one self-contained page that says what the run's rows say."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sample_run import add_candidate, make_row, make_run

from nas_ray.chart import Series, draw_lines
from nas_ray.config import RunConfig, SelectionConfig
from nas_ray.interval import Interval
from nas_ray.leaderboard import rank
from nas_ray.outcome import Outcome, Stage
from nas_ray.report import render_report, write_report
from nas_ray.scatter import draw_scatter
from nas_ray.schema import NodeRow
from nas_ray.store import Store

VOID = {"meta", "br", "link"}


class Structure(HTMLParser):
    """Checks that every element is closed in order, and collects what a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [f"{name}={value}" for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass  # <circle/>

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parse(page: str) -> Structure:
    structure = Structure()
    structure.feed(page)
    structure.close()
    assert structure.open == []
    return structure


def test_the_page_is_whole_and_fetches_nothing(tmp_path: Path) -> None:
    store = make_run(tmp_path / "run", unfinished=5)
    place = write_report(store)
    page = Path(place).read_text()
    assert place == f"{store.folder}/report.html"
    assert parse(page).fetched == []
    assert "<script" not in page
    assert not re.search(r"@import|url\(", page)


def test_the_page_says_what_the_rows_say(tmp_path: Path) -> None:
    store = make_run(tmp_path / "run", cycles=2)
    text = " ".join(parse(render_report(store)).text)
    best = rank(store.candidates())[0]
    assert best.accuracy is not None
    assert f"{100 * best.accuracy:.2f} %" in text
    assert best.id in text
    assert "2 of 2 cycles finished, 52 candidates" in text
    assert "46.2 [28.8, 64.5]" in text  # 12 valid of 26 by Wilson
    for outcome in {row.outcome for row in store.candidates()}:
        assert outcome in text
    assert "do not add up" not in text


def test_a_programs_text_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "run", RunConfig())
    row = make_row(0, 0, (Outcome.VALID, Stage.TRAIN), random.Random(0))
    add_candidate(store, replace(row, code="x = '</pre></main><script>alert(1)</script>'", parent_ids=("<b>",)))
    page = render_report(store)
    parse(page)
    assert "<script" not in page
    assert "<b>" not in page


def test_the_page_says_what_held_the_candidates_in(tmp_path: Path) -> None:
    store = make_run(tmp_path / "run", cycles=1)
    assert "Containment: not recorded." in render_report(store)
    store.append_node(NodeRow(node="n1", walls="tier A: <all>", tier="A", host="one"))
    assert "Containment: 1 node at tier A: &lt;all&gt;." in render_report(store)


@pytest.mark.parametrize("rows", [0, 1])
def test_a_run_that_has_hardly_begun_has_a_page_too(tmp_path: Path, rows: int) -> None:
    parse(render_report(make_run(tmp_path / "run", cycles=0, unfinished=rows)))


def test_accounts_that_do_not_add_up_are_on_the_page(tmp_path: Path) -> None:
    store = make_run(tmp_path / "run", cycles=1)
    store.append_cycle(replace(store.cycles()[0], cycle=1))
    assert "do not add up" in render_report(store)


def test_a_scatter_has_a_dot_for_each_known_cost_and_one_more_for_each_of_the_front() -> None:
    rows = [
        replace(make_row(0, index, (Outcome.VALID, Stage.TRAIN), random.Random(index)), parameters=parameters)
        for index, parameters in enumerate((10, 1000, 0, None))
    ]
    svg = draw_scatter(rows, rows[:1], "parameters")
    parse(svg)
    assert svg.count("<circle") == 3
    assert svg.count("<title>") == 1
    assert "2 novel valid candidates" in svg
    assert ">1,000<" in svg
    assert draw_scatter(rows, [], "latency") == ""
    parse(draw_scatter(rows[:1], rows[:1], "parameters"))  # no spread


def test_the_page_draws_the_goals_of_the_run(tmp_path: Path) -> None:
    selection = SelectionConfig(goals=("accuracy", "flops", "latency"))
    store = Store.create(tmp_path / "run", RunConfig(selection=selection))
    row = replace(make_row(0, 0, (Outcome.VALID, Stage.TRAIN), random.Random(0)), flops=5, parameters=5)
    add_candidate(store, row)
    page = render_report(store)
    assert "accuracy against FLOPs of one image" in page
    assert "accuracy against latency" not in page  # none was measured
    add_candidate(store, replace(row, index=1, id="b", latency_ms=0.25))
    assert "accuracy against latency of one image, ms" in render_report(store)


def test_a_chart_draws_each_point_once_and_leaves_gaps() -> None:
    nan = float("nan")
    points = [(0, Interval(0.1, 0.2, 0.3)), (1, None), (2, Interval(nan, 0.5, nan))]
    svg = draw_lines([Series("a & b", points)], "title")
    assert svg.count("<circle") == 2
    assert svg.count('class="bar"') == 1
    assert "a &amp; b: 20.0 % [10.0, 30.0]" in svg
    assert "nan" not in svg
