"""A search is watched as a live table on a terminal and as plain lines anywhere else."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console
from sample_run import make_run

from jobs.live import Snapshot, Watcher
from nas_ray.config import RunConfig
from nas_ray.funnel import Funnel
from nas_ray.progress import measure_progress
from nas_ray.schema import CycleRow

FUNNEL = Funnel(generated=9, parsed=8, contract=7, built=6, novel=5, trained=4)
TOTALS = Funnel(generated=25, parsed=8, contract=7, built=6, novel=5, trained=4)


def snapshot(cycle: int = 1) -> Snapshot:
    return Snapshot(cycle, 16, FUNNEL, TOTALS, 3, 0.5, 0.75, 0.875, "0123456789abcdef", 1905.0)


def watch(terminal: bool, **options: object) -> tuple[Watcher, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=140, color_system=None)
    return Watcher(RunConfig(cycles=3), "runs/one", console=console, **options), out  # type: ignore[arg-type]


def pictures(text: str) -> str:
    """The text without the codes that move the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_without_a_terminal_there_are_plain_lines_only() -> None:
    watcher, out = watch(terminal=False)
    with watcher:
        watcher.phase("start the generator")
        watcher.update(snapshot())
        for _ in range(100):
            watcher.update(snapshot())  # within the same seconds: no second line
        watcher.phase("fine-tune")
        watcher.phase("fine-tune")
        watcher.warn("no new adapter")
        watcher.cycle_done(CycleRow(cycle=1, generated=16, elite=2, total_seconds=75))
        watcher.phase("search")
    lines = out.getvalue().splitlines()
    assert "\x1b" not in out.getvalue()
    assert [re.sub(r"^\[\d+ s\] ", "", line) for line in lines] == [
        "search: digits, seed model, in runs/one",
        "start the generator",
        "cycle 1 (2 of 3): 9 of 16 done, 3 in flight, parsed 8, contract 7, built 6, novel 5, trained 4, "
        "best 87.50 % (0123456789), 1,905 tokens/s",
        "cycle 1 (2 of 3): fine-tune",
        "warning: no new adapter",
        "cycle 1 (2 of 3): finished in 1 min 15 s: generated 16, parsed 0, contract 0, built 0, novel 0, trained 0, "
        "elite 2, mean 50.00 %, best 75.00 %",
        "cycle 2 (3 of 3): search",
    ]


def test_on_a_terminal_the_picture_holds_cycles_progress_best_and_warnings(tmp_path: Path) -> None:
    done = measure_progress(make_run(tmp_path / "run", cycles=1, unfinished=5)).cycles  # cycle 1 was left open
    watcher, out = watch(terminal=True, done=done)
    with watcher:
        watcher.update(snapshot())
        watcher.phase("evaluate")
        watcher.warn("one evaluator was lost")
    picture = pictures(out.getvalue()).splitlines()[-8:]
    rows = [line.split() for line in picture]
    assert rows[1][:8] == ["cycle", "generated", "parsed", "contract", "built", "novel", "trained", "elite"]
    assert rows[2][:8] == ["0", "26", "22", "20", "16", "14", "12", "3"]
    assert rows[3][:12] == ["1", "9", "8", "7", "6", "5", "4", "-", "50.00", "%", "75.00", "%"]
    assert "9 of 16 candidates, 3 in flight" in picture[4]
    assert picture[5].strip() == "best so far 87.50 %  0123456789abcdef"
    assert "cycle 1 (2 of 3): evaluate (0 s)" in picture[6]
    assert "1,905 tokens/s" in picture[6]
    assert picture[7].strip() == "warning: one evaluator was lost"


def test_speed_and_time_left_do_not_count_what_an_earlier_process_did() -> None:
    watcher, out = watch(terminal=False)
    watcher.start()
    watcher.update(snapshot())
    assert "candidates/s" not in out.getvalue()  # 25 final rows were there before
    watcher._shown = 0.0
    more = Funnel(generated=26)
    watcher.update(Snapshot(1, 16, FUNNEL, more, 3))
    assert re.search(r"\d candidates/s, about .* left$", out.getvalue().splitlines()[-1])
    assert not watcher.due


def test_a_finished_cycle_is_drawn_once_with_its_elites() -> None:
    watcher, out = watch(terminal=True)
    with watcher:
        watcher.update(snapshot())
        watcher.cycle_done(CycleRow(cycle=1, generated=16, parsed=15, elite=2, total_seconds=75))
    picture = pictures(out.getvalue()).splitlines()[-4:]
    assert picture[1].split()[:3] == ["1", "16", "15"]
    assert picture[1].split()[-3:] == ["1", "min", "15", "s"][-3:]
    assert "16 candidates" not in "".join(picture)


def test_the_end_names_the_best_the_places_and_the_next_commands(tmp_path: Path) -> None:
    watcher, out = watch(terminal=False)
    store = make_run(tmp_path / "run", unfinished=2)
    watcher.finish(store)
    text = out.getvalue()
    assert f"nas-ray show {store.folder} " in text
    assert f"nas-ray export {store.folder} " in text
    assert f"Not finished. Go on with:  nas-ray resume {store.folder}" in text
    assert len(re.findall(r"^ +[0-3] +26 ", text, re.M)) == 3
