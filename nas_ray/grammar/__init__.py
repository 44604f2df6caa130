"""The random program grammar: image classifiers in the candidate contract, good and bad, from a seeded generator.

It is the only teacher of the seed model (`nas_ray.seed_model`). In: a `random.Random` and a task. Out: the text of a
prompt or a program. Nothing here imports torch.
"""

import random

from nas_ray.grammar.mistakes import spoil
from nas_ray.grammar.plan import Shape, pick, sample_plan
from nas_ray.grammar.spelling import spell

# Share of programs that hold a mistake, and the share of those mistakes that pool below one pixel.
MISTAKES = 0.08
OVERPOOLS = 0.15

SHAPES: dict[Shape, int] = {(1, 8, 8): 45, (1, 28, 28): 25, (3, 32, 32): 30}
CLASSES = {10: 85, 100: 15}
BUDGETS = {500_000: 80, 100_000: 10, 2_000_000: 10}


def prompt(in_shape: Shape, classes: int, parameters: int) -> str:
    """The one line that asks the seed model for a program; `in_shape` is (C, H, W)."""
    channels, height, width = in_shape
    return f"# {channels}x{height}x{width} -> {classes} classes, at most {parameters} parameters\n"


def sample_program(
    rng: random.Random, in_shape: Shape, classes: int, parameters: int, *, mistakes: float = MISTAKES
) -> str:
    """Draw one program for images of shape (C, H, W).

    A share `mistakes` of the programs does not run, and some exceed the budget of `parameters`: see `plan.CARELESS`.
    The same state of `rng` gives the same program.
    """
    mistaken = rng.random() < mistakes
    overpool = mistaken and rng.random() < OVERPOOLS
    program = spell(sample_plan(rng, in_shape, classes, parameters, overpool=overpool), rng)
    return spoil(program, rng) if mistaken and not overpool else program


def sample_document(rng: random.Random, *, mistakes: float = MISTAKES) -> tuple[str, str]:
    """Draw a task and a program for it: what the seed model is trained on, as (prompt, program)."""
    task = pick(rng, SHAPES), pick(rng, CLASSES), pick(rng, BUDGETS)
    return prompt(*task), sample_program(rng, *task, mistakes=mistakes)
