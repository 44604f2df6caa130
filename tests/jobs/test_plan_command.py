"""`nas-ray plan` says for each number where it is from, and starts and writes nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from sample_run import make_run

from jobs.cli import main
from jobs.plan import parse_said
from nas_ray.config_file import load_config
from nas_ray.interval import Interval
from nas_ray.store import Store


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_run(tmp_path_factory.mktemp("pilot") / "sample", cycles=4, candidates=13)


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `nas-ray plan`."""
    with pytest.raises(SystemExit) as ended:
        main(("plan", *arguments))
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_without_a_pilot_all_numbers_are_guesses_but_those_that_were_said(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "--trainings", "1100", "--smoothing", "0.1:0.3")
    assert code == 0
    assert re.search(r"^smoothing +0\.2 \[0\.1, 0\.3\] +said", out, re.M)
    assert re.search(r"^elite rate +0\.2 \[0\.1, 0\.3\] +guess", out, re.M)
    assert "Built-in guesses, which know nothing of your model and data: elite_rate, valid_rate, novel_rate, rel" in out


def test_the_last_line_can_be_pasted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = tmp_path / "my.yaml"
    source.write_text("cycles: 5\ngeneration: {temperature: 0.8}\n")
    _, out, _ = call(capsys, "--trainings", "1100", "--config", str(source))
    line = out.strip().splitlines()[-1]
    assert line.startswith(f"nas-ray search --config {source} --set ")
    changes = re.findall(r"--set (\S+)", line)
    assert "generation.temperature=1.0" in changes
    changed = load_config(source, changes)
    assert changed.cycles > 5
    assert re.search(rf"^cycles +5 +{changed.cycles} ", out, re.M)


def test_a_pilot_is_measured_and_its_later_cycles_check_the_forecast(
    run: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = call(capsys, "--pilot", run.folder, "--pilot-cycles", "3", "--bar", "0.7")
    assert re.search(r"^valid rate +0\.\d+ \[.*\] +pilot +\d+ of 39 programs", out, re.M)
    assert re.search(r"^bar +0\.7 +said", out, re.M)
    assert "The forecast and the cycles after the pilot" in out
    assert " of 1 later cycles lie within" in out
    _, out, _ = call(capsys, "--pilot", run.folder)
    assert "after the pilot" not in out


def test_formulas_come_where_they_are_asked_for_and_warnings_always(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--trainings", "100", "--elite-rate", "0.05", "--smoothing", "0.05")
    _, out, _ = call(capsys, *arguments)
    assert re.search(r"^key +now +advised *$", out, re.M)
    assert re.search(r"^what +value *$", out, re.M)
    assert re.search(r"^! fine-tunes to 90% elites: the budget falls short", out, re.M)
    tables = out.split("\n! ", maxsplit=1)[0].splitlines()
    assert max(len(line.rstrip()) for line in tables) <= 100
    _, out, _ = call(capsys, *arguments, "--why")
    assert re.search(r"^key +now +advised +why *$", out, re.M)
    assert "(1 - elite rate x novel rate)^N" in out
    assert re.search(r"^! fine-tunes to 90% elites: the budget falls short", out, re.M)


def test_json_holds_everything_and_no_infinities(run: Store, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(Path(run.folder).rglob("*"))
    _, out, _ = call(capsys, "--pilot", run.folder, "--pilot-cycles", "3", "--hours", "0.5", "--json")
    values = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert values["budget_trainings"] > 0
    assert values["known"]["smoothing"]["source"] == "pilot"
    assert {one["cycle"] for one in values["checked"]} == {3}
    assert set(values["checked"][0]["counted"]) == {"low", "estimate", "high"}
    assert sorted(Path(run.folder).rglob("*")) == before, "a plan writes nothing"


def test_all_mistakes_come_at_once_in_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(
        capsys,
        "--hours",
        "3",
        "--target",
        "90",
        "--elite-rate",
        "lots",
        "--smoothing",
        "0.3:0.1",
        "--pilot-cycles",
        "2",
    )
    assert (code, out) == (2, "")
    assert err.startswith("Error: what to plan for has 5 mistakes:")
    for word in ("--elite-rate lots: write one number", "--smoothing 0.3:0.1", "--pilot-cycles needs --pilot",
                 "hours needs the seconds", "target = 90"):  # fmt: skip
        assert word in err


def test_numbers_and_ranges_are_read() -> None:
    texts = dict.fromkeys(("valid_rate", "novel_rate", "reliability", "seconds", "noise_sd", "bar"))
    found, mistakes = parse_said({**texts, "elite_rate": "0.2", "smoothing": "0:0.4"})
    assert mistakes == []
    assert found == {"elite_rate": Interval(0.2, 0.2, 0.2), "smoothing": Interval(0.0, 0.2, 0.4)}
    _, mistakes = parse_said({**texts, "elite_rate": "0", "smoothing": "nan"})
    assert len(mistakes) == 2
