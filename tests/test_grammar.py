"""Properties of the random program grammar."""

import ast
import random

import pytest
import torch

from nas_ray.grammar import prompt, sample_document, sample_program
from nas_ray.grammar.mistakes import EDITS, missing_attribute, spoil, syntax_slip, wrong_channels, wrong_features
from nas_ray.grammar.plan import STYLES, Plan, sample_plan
from nas_ray.grammar.spelling import spell
from nas_ray.seed_model.measure import judge_all

TASKS = [((1, 8, 8), 10, 500_000), ((1, 28, 28), 10, 100_000), ((3, 32, 32), 100, 2_000_000)]


def build(program: str, plan: Plan) -> torch.nn.Module:
    names: dict[str, type[torch.nn.Module]] = {}
    exec(program, names)
    prm = {"lr": 0.01, "momentum": 0.9, "dropout": 0.2, "batch": 32}
    return names["Net"]((1, *plan.in_shape), (plan.classes,), prm, "cpu")


def test_same_seed_gives_the_same_program() -> None:
    first, second = ([sample_document(random.Random(seed)) for seed in range(20)] for _ in range(2))
    assert first == second
    assert len(set(first)) == 20


@pytest.mark.parametrize(("in_shape", "classes", "parameters"), TASKS)
def test_plan_knows_the_parameters_and_the_logits_of_its_program(
    in_shape: tuple[int, int, int], classes: int, parameters: int
) -> None:
    rng = random.Random(3)
    for _ in range(25):
        plan = sample_plan(rng, in_shape, classes, parameters)
        net = build(spell(plan, rng), plan)
        assert sum(one.numel() for one in net.parameters()) == plan.parameters()
        assert net(torch.zeros(2, *in_shape)).shape == (2, classes)


def test_every_style_is_spelled_as_a_program_that_builds() -> None:
    rng = random.Random(0)
    seen: set[str] = set()
    for _ in range(200):
        plan = sample_plan(rng, (1, 8, 8), 10, 500_000)
        if plan.style not in seen:
            seen.add(plan.style)
            build(spell(plan, rng), plan)
    assert seen == set(STYLES)


def test_one_plan_has_many_spellings() -> None:
    plan = sample_plan(random.Random(1), (1, 8, 8), 10, 500_000)
    assert len({spell(plan, random.Random(seed)) for seed in range(40)}) > 10


def test_only_a_small_share_of_plans_exceeds_the_budget() -> None:
    rng = random.Random(0)
    over = sum(sample_plan(rng, (1, 8, 8), 10, 500_000).parameters() > 500_000 for _ in range(400))
    assert 4 <= over <= 40


def test_overpooling_halves_the_maps_below_one_pixel() -> None:
    rng = random.Random(0)
    plans = [sample_plan(rng, (1, 8, 8), 10, 500_000, overpool=True) for _ in range(5)]
    assert all(min(plan.out_shape()[1:]) <= 0 for plan in plans)
    outcomes = [one.outcome for one in judge_all([spell(plan, rng) for plan in plans])]
    assert outcomes.count("shape_error") >= 3  # a plan may be over the budget too, which is found first
    assert set(outcomes) <= {"shape_error", "too_large"}


def test_programs_without_mistakes_parse_and_those_with_one_mostly_fail() -> None:
    rng = random.Random(5)
    for _ in range(50):
        ast.parse(sample_program(rng, (3, 32, 32), 10, 500_000, mistakes=0.0))
    mistaken = [sample_program(rng, (1, 8, 8), 10, 500_000, mistakes=1.0) for _ in range(20)]
    outcomes = [one.outcome for one in judge_all(mistaken)]
    assert outcomes.count("valid") <= 4  # a mistake may hit a line that nothing depends on


def test_each_edit_changes_one_place_or_refuses() -> None:
    program = spell(sample_plan(random.Random(2), (1, 8, 8), 10, 500_000), random.Random(2))
    for edit in EDITS:
        spoiled = edit(program, random.Random(0))
        assert spoiled is None or abs(len(spoiled) - len(program)) <= 120
    for edit in (wrong_channels, wrong_features, missing_attribute, syntax_slip):
        assert edit("", random.Random(0)) is None
    assert spoil(program, random.Random(0)) != program


def test_prompt_is_one_line_that_names_the_task() -> None:
    assert prompt((1, 8, 8), 10, 500_000) == "# 1x8x8 -> 10 classes, at most 500000 parameters\n"
