"""`nas-ray diagnose` and the end of a search, on the rows of a finished run."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from sample_run import make_run
from typer.testing import CliRunner

from jobs.cli import app
from jobs.summary import print_summary
from nas_ray.report import render_report


def test_all_diagnostics_are_printed_with_verdict_and_meaning(tmp_path: Path) -> None:
    store = make_run(tmp_path / "run", cycles=6)
    result = CliRunner().invoke(app, ["diagnose", store.folder])
    assert result.exit_code == 0
    for number in range(1, 18):
        assert f"\nD{number} " in result.output
    assert "not testable with" in result.output
    assert "Programs are counted over" in result.output


def test_json_holds_the_same_and_the_bar_that_was_asked_for(tmp_path: Path) -> None:
    store = make_run(tmp_path / "run", cycles=6)
    result = CliRunner().invoke(app, ["diagnose", store.folder, "--json", "--bar", "0.7"])
    said = json.loads(result.output)
    assert said["bar"] == 0.7
    assert [one["id"] for one in said["diagnostics"]] == [f"D{number}" for number in range(1, 18)]


def test_a_run_without_a_closed_cycle_is_no_error(tmp_path: Path) -> None:
    store = make_run(tmp_path / "run", cycles=0, unfinished=3)
    result = CliRunner().invoke(app, ["diagnose", store.folder])
    assert result.exit_code == 0
    assert "not testable" in result.output


def test_a_bar_that_is_no_share_is_refused(tmp_path: Path) -> None:
    store = make_run(tmp_path / "run")
    assert CliRunner().invoke(app, ["diagnose", store.folder, "--bar", "40"]).exit_code == 2


def test_the_end_of_a_search_says_it_in_short_and_warns_of_the_winner_s_curse(tmp_path: Path) -> None:
    store = make_run(tmp_path / "run", cycles=6)
    console = Console(record=True, width=200)
    print_summary(store, console)
    text = console.export_text()
    assert f"nas-ray diagnose {store.folder}" in text
    assert "lucky" in text
    assert "D17" not in text


def test_the_report_holds_the_diagnosis(tmp_path: Path) -> None:
    page = render_report(make_run(tmp_path / "run", cycles=6))
    assert "<h2>Diagnosis</h2>" in page
    assert "<td>D17</td>" in page
