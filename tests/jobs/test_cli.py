"""Every command explains itself, starts fast, and tells a mistake in one message with exit code 2."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from sample_run import add_candidate, make_row, make_run

from jobs.cli import ENTRIES, explain, main
from nas_ray.config import RunConfig
from nas_ray.leaderboard import pareto_front, rank
from nas_ray.outcome import Outcome, Stage
from nas_ray.schema import NodeRow
from nas_ray.store import Store, StoreError

READERS = ("status", "leaderboard", "report")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_run(tmp_path_factory.mktemp("runs") / "sample", unfinished=7)


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command in this process."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    code = ended.value.code
    return (0 if code is None else int(code)), out, err


def test_help_names_every_command_and_imports_no_engine() -> None:
    script = (
        "import sys\nfrom jobs.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print('imported:', [name for name in ('ray', 'torch', 'vllm', 'pyarrow') if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    assert "imported: []" in result.stdout
    for entry in ENTRIES:
        assert re.search(rf"{entry.name} +{re.escape(entry.summary)}", result.stdout)


@pytest.mark.parametrize("name", [entry.name for entry in ENTRIES])
def test_every_commands_help_has_a_worked_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, name, "--help")
    assert code == 0
    assert re.search(rf"Examples?:\s+nas-ray {name}", out)


def test_a_misspelt_command_is_corrected(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "statsu")
    assert code == 2
    assert "Did you mean 'status'" in err


@pytest.mark.parametrize("name", READERS)
def test_a_run_that_is_not_there_is_one_message_and_code_2(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, name, "no/such/run")
    assert (code, out) == (2, "")
    assert err.startswith("Error: 'no/such/run' is not a run: ")
    assert "Traceback" not in err


def test_errors_of_this_project_are_for_people_and_others_are_not() -> None:
    class Remote(StoreError):
        """As Ray hands on an error of a worker: of two kinds, with the worker's own inside."""

        cause = StoreError("the disk is full")

    assert explain(StoreError("why")) == "why"
    assert explain(Remote("a long remote traceback")) == "the disk is full"
    assert explain(ValueError("a bug")) is None


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("jobs.cli.app", broken)
    with pytest.raises(ZeroDivisionError):
        main(["status"])


def test_status_shows_cycles_best_and_what_to_do(run: Store, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "status", run.folder)
    assert code == 0
    assert len(re.findall(r"^ +\d +26 ", out, re.M)) == 3
    assert "under way" in out
    assert f"Best so far: {rank(run.candidates())[0].id}" in out
    assert "Stopped: 3 of 4 cycles finished, 7 of 26 candidates of the next one." in out
    assert "do not add up" not in out


def test_status_knows_a_living_driver_and_a_finished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store.create(tmp_path / "run", RunConfig())
    assert f"Process {os.getpid()} on " in call(capsys, "status", store.folder)[1]
    finished = make_run(tmp_path / "finished", cycles=1)
    assert "Finished: 1 of 1 cycles." in call(capsys, "status", finished.folder)[1]


def test_a_run_is_named_by_its_folder_under_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "runs" / "mine", cycles=1)
    monkeypatch.chdir(tmp_path)
    assert "Finished: 1 of 1 cycles." in call(capsys, "status", "mine")[1]


def test_the_leaderboard_is_ranked_and_cut(run: Store, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "leaderboard", run.folder, "--top", "3")
    ranked = rank(run.candidates())
    assert re.findall(r"^ +\d+ +([0-9a-f]{10}) ", out, re.M) == [row.id[:10] for row in ranked[:3]]
    assert f"3 of {len(ranked)}." in out


def test_the_pareto_front_is_listed_drawn_and_given_as_json(run: Store, capsys: pytest.CaptureFixture[str]) -> None:
    front = pareto_front(run.candidates(), ("accuracy", "parameters"))
    _, out, _ = call(capsys, "leaderboard", run.folder, "--pareto")
    assert re.findall(r"^ +\d+ +([0-9a-f]{10}) ", out, re.M) == [row.id[:10] for row in front]
    assert "over accuracy, parameters." in out
    assert 1 <= out.count("#") <= len(front)
    _, out, _ = call(capsys, "leaderboard", run.folder, "--goals", "accuracy,parameters", "--json", "--top", "2")
    assert [json.loads(line)["id"] for line in out.splitlines()] == [row.id for row in front[:2]]


def test_a_goal_that_was_not_measured_is_said_and_one_that_there_is_not_refused(
    run: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = call(capsys, "leaderboard", run.folder, "--goals", "accuracy,latency")
    assert "No candidate of this run has a measured latency, so it plays no part." in out
    code, out, err = call(capsys, "leaderboard", run.folder, "--goals", "accuracy,size")
    assert (code, out) == (2, "")
    assert "give accuracy and then one or more of parameters, flops, latency" in err


def test_depth_and_latency_are_told_where_they_are_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store.create(tmp_path / "run", RunConfig())
    row = make_row(0, 0, (Outcome.VALID, Stage.TRAIN), random.Random(0))
    add_candidate(store, row)
    assert re.search(r"MFLOPs +cycle", call(capsys, "leaderboard", store.folder)[1])
    add_candidate(store, replace(row, index=1, id="bb", depth=4, latency_ms=0.25))
    assert re.search(r"depth +ms +cycle", call(capsys, "leaderboard", store.folder)[1])
    _, out, _ = call(capsys, "show", store.folder, "bb")
    assert ", depth 4," in out
    assert "0.25 ms for one image" in out


def test_show_prints_code_outcome_and_measurement(run: Store, capsys: pytest.CaptureFixture[str]) -> None:
    best = rank(run.candidates())[0]
    assert best.accuracy is not None
    _, out, _ = call(capsys, "show", run.folder, best.id[:8])
    assert f"valid, {100 * best.accuracy:.2f} %, rank 1 of " in out
    assert ", elite" in out
    assert "on digits (validation) after 1 epoch" in out
    assert best.code in out
    assert call(capsys, "show", run.folder, best.id[:8], "--code")[1] == best.code


def test_show_says_why_a_candidate_failed(run: Store, capsys: pytest.CaptureFixture[str]) -> None:
    failed = next(row for row in run.candidates() if row.outcome is Outcome.SHAPE_ERROR)
    _, out, _ = call(capsys, "show", run.folder, f"{failed.cycle}/{failed.index}")
    assert "shape_error at build (RuntimeError): why it was shape_error" in out


def test_show_refuses_an_unknown_id_in_one_line(run: Store, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "show", run.folder, "zzz")
    assert code == 2
    assert err == "Error: no candidate's id begins with 'zzz'; `nas-ray leaderboard` shows the best ones' ids.\n"


def test_show_prints_what_the_program_printed_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_run(tmp_path / "run", cycles=1)
    row = next(row for row in made.candidates() if row.outcome is Outcome.VALID)
    (measured,) = (one for one in made.evaluations() if one.id == row.id)
    again = replace(measured, seed=7, tier="A", output="epoch 1 [bold]not markup[/bold]\n[/nothing]")
    made.append_evaluation(again)
    _, out, _ = call(capsys, "show", made.folder, row.id)
    assert "seed 7, 0.00 s, tier A" in out
    assert re.search(r"^printed ─+$", out, re.M)
    assert out.count("printed ─") == 1, "nothing is shown of a program that printed nothing"
    assert again.output in out


def test_status_says_what_holds_the_candidates_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_run(tmp_path / "run", cycles=1)
    assert "Containment: not recorded." in call(capsys, "status", made.folder)[1]
    made.append_node(NodeRow(node="n1", walls="tier C: [files] open", tier="C", host="one"))
    assert "Containment: 1 node at tier C: [files] open." in call(capsys, "status", made.folder)[1]


def test_code_is_coloured_on_a_terminal_only(run: Store) -> None:
    script = "import pty, sys; pty.spawn([sys.executable, '-m', 'jobs.cli', 'show', *sys.argv[1:]])"
    best = rank(run.candidates())[0]
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", script, run.folder, best.id], cwd=root, capture_output=True, text=True, timeout=60,
        check=True, stdin=subprocess.DEVNULL, env=os.environ | {"TERM": "xterm-256color"},
    )  # fmt: skip
    assert re.search(r"\x1b\[[0-9;]*mclass", result.stdout)


def test_report_prints_the_path_of_the_page(run: Store, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "report", run.folder)
    assert Path(out.strip()).read_text().startswith("<!doctype html>")
