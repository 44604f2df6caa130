"""What the diagnostics say of runs whose trouble is known, row by row; real broken searches are in tests/jobs."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from sample_run import make_run

from nas_ray.config import RunConfig
from nas_ray.diagnostics import Diagnosis, Diagnostic, diagnose
from nas_ray.outcome import Outcome, Stage
from nas_ray.run_table import RunTable
from nas_ray.schema import CandidateRow, CycleRow, EvaluationRow

IMAGES = 300


def config_of(**changes: object) -> RunConfig:
    return RunConfig.model_validate({"cycles": 8, "candidates_per_cycle": 50, **changes})


class RunMaker:
    """Rows of a run whose generator writes a good program with the chance that each cycle is given."""

    def __init__(self, config: RunConfig | None = None, seed: int = 0) -> None:
        self.config = config or config_of()
        self.dice = random.Random(seed)
        self.candidates: list[CandidateRow] = []
        self.cycles: list[CycleRow] = []
        self.evaluations: list[EvaluationRow] = []

    def add_cycle(
        self,
        good: float,
        *,
        valid: float = 0.6,
        duplicates: float = 0.0,
        likeness: float = 0.9,
        gains: tuple[float, float] = (0.5, 0.5),
        held_out: bool = True,
        elites: int | None = None,
        images: int = IMAGES,
        spread: float = 0.03,
        edits: float = 0.0,
        applies: float = 1.0,
    ) -> None:
        """One closed cycle; `gains` are those of training and held-out elites, nats a program."""
        cycle, rows = len(self.cycles), []
        for index in range(self.config.candidates_per_cycle):
            mode = "delta" if self.dice.random() < edits else "full"
            dead = mode == "delta" and self.dice.random() >= applies
            runs = not dead and self.dice.random() < valid
            again = runs and self.dice.random() < duplicates and self.candidates
            level = 0.8 if self.dice.random() < good else 0.2
            accuracy = round(min(max(self.dice.gauss(level, spread), 0), 1) * images) / images
            outcome = Outcome.PATCH_FAILED if dead else Outcome.VALID if runs else Outcome.SHAPE_ERROR
            rows.append(
                CandidateRow(
                    run="made",
                    cycle=cycle,
                    index=index,
                    id=f"{self.dice.getrandbits(64):016x}",
                    outcome=Outcome.DUPLICATE if again else outcome,
                    stage=Stage.TRAIN if runs else Stage.BUILD,
                    duplicate_of=self.dice.choice(self.candidates[:5]).id if again else "",
                    duplicate_view="code" if again else "",
                    similarity=self.dice.uniform(likeness, 1) if again else 0.0,
                    novel=runs and not again,
                    accuracy=accuracy if runs and not again else None,
                    mode=mode,
                    completion_tokens=self.dice.randrange(20, 200),
                    finish_reason="stop",
                )
            )
        self.candidates += rows
        novel = sorted((row for row in rows if row.novel), key=lambda row: -(row.accuracy or 0))
        chosen = novel[: elites if elites is not None else max(1, len(novel) // 4)]
        held = chosen[2::3] if held_out else []
        train = [row for row in chosen if row not in held]
        after_train, after_held = (
            tuple(20.0 - self.dice.gauss(gain, 0.2) for _ in rows)
            for gain, rows in zip(gains, (train, held), strict=True)
        )
        self.cycles.append(
            CycleRow(
                cycle=cycle,
                generated=len(rows),
                elite=len(chosen),
                elite_ids=tuple(row.id for row in chosen),
                training_ids=tuple(row.id for row in train),
                held_out_ids=tuple(row.id for row in held),
                nll_before_train=(20.0,) * len(train),
                nll_after_train=after_train,
                nll_before_held_out=(20.0,) * len(held),
                nll_after_held_out=after_held,
            )
        )
        self.evaluations += [
            EvaluationRow(
                id=row.id,
                cycle=cycle,
                index=row.index,
                dataset="digits",
                protocol=self.config.protocol.digest,
                seed=0,
                epochs=1,
                accuracy=row.accuracy,
                loss=1.0,
            )
            for row in novel
        ]

    @property
    def table(self) -> RunTable:
        return RunTable.of(self.config, self.candidates, self.cycles, self.evaluations)


def healthy(cycles: int = 8, **changes: object) -> RunMaker:
    maker = RunMaker(config_of(**changes))
    for cycle in range(cycles):
        maker.add_cycle(1 - 0.8 * 0.75**cycle)
    return maker


def answer(diagnosis: Diagnosis, number: str) -> Diagnostic:
    return next(one for one in diagnosis.diagnostics if one.id == number)


def test_every_question_has_an_answer_and_in_order() -> None:
    found = [one.id for one in diagnose(healthy().table).diagnostics]
    assert found == [f"D{number}" for number in range(1, 18)]


def test_a_run_that_learns_has_no_cause_and_a_forecast() -> None:
    diagnosis = diagnose(healthy().table)
    assert diagnosis.causes == ()
    assert diagnosis.headline.startswith("This run is learning.")
    assert answer(diagnosis, "D8").verdict == "ok"
    assert "Fieller" in answer(diagnosis, "D8").finding


def test_training_elites_that_gain_more_than_any_step_can_are_memorised() -> None:
    maker = RunMaker()
    for _ in range(4):
        maker.add_cycle(0.5, gains=(15.0, -2.0))
    diagnosis = diagnose(maker.table)
    assert diagnosis.causes[0] == "memorising"
    assert "finetune.epochs=1 (now 3)" in answer(diagnosis, "D1").advice
    assert answer(diagnosis, "D2").verdict == "note"


def test_memorising_shows_without_any_held_out_elite() -> None:
    maker = RunMaker()
    maker.add_cycle(0.5, gains=(15.0, 0.0), held_out=False)
    assert "memorising" in diagnose(maker.table).causes


def test_gains_that_go_together_are_no_memorising() -> None:
    diagnosis = diagnose(healthy().table)
    assert answer(diagnosis, "D1").verdict != "problem"
    assert answer(diagnosis, "D2").verdict == "ok"


def test_a_filter_that_refuses_most_starves_the_run() -> None:
    maker = RunMaker(config_of(novelty={"tau": 0.3}))
    for _ in range(5):
        maker.add_cycle(0.5, valid=0.9, duplicates=0.93, likeness=0.3, elites=2)
    diagnosis = diagnose(maker.table)
    assert diagnosis.causes[0] == "starving"
    assert "novelty.tau=0.8 or more (now 0.3)" in answer(diagnosis, "D12").advice


def test_a_generator_that_copies_itself_is_not_told_to_open_the_filter() -> None:
    maker = RunMaker()
    for _ in range(5):
        maker.add_cycle(0.5, valid=0.9, duplicates=0.93, elites=2)
    found = answer(diagnose(maker.table), "D13")
    assert found.cause == "starving"
    assert "repeats itself" in found.advice
    assert "novelty.tau" not in found.advice


def test_few_validation_images_beside_programs_that_are_alike_are_noise() -> None:
    maker = RunMaker(config_of(dataset={"validation_limit": 50}))
    for _ in range(5):
        maker.add_cycle(1.0, images=50, spread=0.05)
    diagnosis = diagnose(maker.table)
    assert diagnosis.causes[0] == "noisy"
    assert "50 validation images" in answer(diagnosis, "D15").finding
    assert "dataset.validation_limit=200 (now 50)" in answer(diagnosis, "D15").advice


def test_many_images_leave_the_question_to_fresh_seeds() -> None:
    maker = RunMaker()
    for _ in range(5):
        maker.add_cycle(0.3)
    found = answer(diagnose(maker.table), "D15")
    assert found.verdict == "untestable"
    assert "nas-ray reliability" in found.finding


def test_quality_that_fell_is_named_with_its_cycles() -> None:
    maker = RunMaker()
    for good in (0.2, 0.6, 0.9, 0.3, 0.2):
        maker.add_cycle(good)
    diagnosis = diagnose(maker.table)
    assert "falling" in diagnosis.causes
    assert "to 4" in answer(diagnosis, "D5").finding


def test_a_generator_that_stays_as_it_is_does_not_learn() -> None:
    maker = RunMaker(config_of(finetune={"enabled": False}), seed=3)
    for _ in range(10):
        maker.add_cycle(0.3)
    diagnosis = diagnose(maker.table)
    assert "not learning" in diagnosis.causes
    assert "finetune.enabled=true" in answer(diagnosis, "D8").advice


def test_edits_that_do_not_apply_are_not_worth_it() -> None:
    maker = RunMaker()
    for _ in range(5):
        maker.add_cycle(0.5, edits=0.5, applies=0.2)
    found = answer(diagnose(maker.table), "D11")
    assert found.cause == "edits fail"
    assert found.measured is not None
    assert found.measured.high < 1


def test_edits_are_compared_only_in_cycles_that_hold_both_kinds() -> None:
    maker = RunMaker()
    maker.add_cycle(0.5)
    maker.add_cycle(0.5, edits=1.0)
    assert answer(diagnose(maker.table), "D11").verdict == "untestable"


@pytest.mark.parametrize("cycles", [0, 1, 2])
def test_too_few_cycles_get_a_need_instead_of_a_verdict(cycles: int) -> None:
    maker = RunMaker()
    for _ in range(cycles):
        maker.add_cycle(0.3)
    diagnosis = diagnose(maker.table)
    found = answer(diagnosis, "D7")
    assert found.verdict == "untestable"
    assert "needs" in found.finding
    assert "D7" in answer(diagnosis, "D17").finding


def test_a_run_without_one_valid_program_is_diagnosed_too() -> None:
    maker = RunMaker()
    for _ in range(3):
        maker.add_cycle(0.5, valid=0.0, elites=0)
    assert diagnose(maker.table).bar is None
    assert "starving" in diagnose(maker.table).causes


def test_the_bar_that_is_asked_for_is_the_one_that_is_counted_over() -> None:
    diagnosis = diagnose(healthy().table, bar=0.5)
    assert diagnosis.bar == 0.5
    assert "50.0 %" in answer(diagnosis, "D7").finding


def test_the_values_survive_json_without_what_json_does_not_know(tmp_path: Path) -> None:
    store = make_run(tmp_path / "run", cycles=5)
    values = diagnose(RunTable.read(store)).as_values()
    assert json.loads(json.dumps(values, allow_nan=False))["diagnostics"][0]["id"] == "D1"


def test_elites_of_earlier_cycles_that_are_replayed_do_not_count_again() -> None:
    maker = RunMaker()
    for _ in range(4):
        maker.add_cycle(0.5, gains=(0.5, 0.5))
    replayed = []
    for number, cycle in enumerate(maker.cycles):
        earlier = maker.cycles[number - 1] if number else None
        if earlier is not None:  # learned by heart long ago, and held out again
            cycle = replace(
                cycle,
                training_ids=cycle.training_ids + earlier.training_ids,
                nll_before_train=cycle.nll_before_train + (20.0,) * len(earlier.training_ids),
                nll_after_train=cycle.nll_after_train + (1.0,) * len(earlier.training_ids),
            )
        replayed.append(cycle)
    alone = answer(diagnose(maker.table), "D1")
    maker.cycles = replayed
    assert answer(diagnose(maker.table), "D1") == alone


@pytest.mark.parametrize(
    "changes",
    [
        {"selection": {"quantile": 1.0}},
        {"selection": {"quantile": None, "threshold": 0.5}},
        {"novelty": {"tau": 1.0}},
        {"protocol": {"epochs": 4}, "evaluation": {"scheduler": "asha"}},
        {"evaluation": {"seeds": 3}},
        {"also": [{"name": "fashion-mnist"}]},
        {"selection": {"goals": ["accuracy", "parameters"]}},
        {"generation": {"full": 0, "delta": 1}},
    ],
)
def test_odd_configurations_are_diagnosed_too(changes: dict[str, object]) -> None:
    assert len(diagnose(healthy(**changes).table).diagnostics) == 17


@pytest.mark.parametrize("shares", [(0.6, 1.0, 1.0), (1.0, 0.6), (0.0, 0.0, 0.7)])
def test_cycles_with_all_or_none_over_the_bar_are_diagnosed_too(shares: tuple[float, ...]) -> None:
    maker = RunMaker()
    for good in shares:
        maker.add_cycle(good, valid=1.0)
    assert len(diagnose(maker.table, bar=0.5).diagnostics) == 17


def test_a_run_that_stopped_learning_is_not_said_to_be_learning() -> None:
    maker = RunMaker(config_of(cycles=14))
    for cycle in range(14):
        maker.add_cycle(0.1 + 0.1 * cycle if cycle < 8 else 0.7)
    assert answer(diagnose(maker.table), "D8").verdict in ("ok", "note")
    for _ in range(3):
        maker.add_cycle(0.2)
    diagnosis = diagnose(maker.table)
    assert answer(diagnosis, "D8").verdict != "ok"
    assert "falling" in diagnosis.causes


def test_every_problem_says_what_to_change_and_what_it_is_a_cause_of() -> None:
    makers = [healthy(), RunMaker(seed=1), RunMaker(seed=2)]
    for _ in range(6):
        makers[1].add_cycle(0.1, gains=(9.0, 0.0), elites=2)
        makers[2].add_cycle(0.9, duplicates=0.9, edits=0.5, applies=0.1)
    for one in (one for maker in makers for one in diagnose(maker.table).diagnostics):
        assert (one.verdict == "problem") == bool(one.cause)
        assert one.verdict != "problem" or one.advice
