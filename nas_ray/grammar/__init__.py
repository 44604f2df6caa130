"""The random program grammar: image classifiers in the candidate contract, good and bad, from a seeded generator.

It is the only teacher of the seed model (`nas_ray.seed_model`). In: a `random.Random` and a task. Out: the text of a
prompt or a program. Nothing here imports torch.
"""

import random

from nas_ray.deltas import DIVIDER, REPLACE, SEARCH, WANTED, write_delta
from nas_ray.grammar.edits import sample_drill, sample_edit
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


def edit_prompt(
    in_shape: Shape, classes: int, parameters: int, parent: str, accuracy: float, size: int, wanted: str
) -> str:
    """What asks the seed model for an edit of a program with that `accuracy` (0 .. 1) and `size` (parameters)."""
    measured = f"accuracy {round(100 * accuracy)} %, {size} parameters"
    task = prompt(in_shape, classes, parameters)
    return f"{task}# edit this: {measured}; wanted: {WANTED[wanted]}\n{parent.strip()}\n"


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


def sample_edit_document(rng: random.Random, *, mistakes: float = MISTAKES) -> tuple[str, str]:
    """Draw a task, a program for it and an edit of that program, as (prompt, search-and-replace blocks).

    Nothing is trained here, so the accuracy in the prompt is drawn too: it says nothing about the edit.
    """
    task = pick(rng, SHAPES), pick(rng, CLASSES), pick(rng, BUDGETS)
    edited = sample_edit(rng, *task, mistakes=mistakes)
    asked = edit_prompt(*task, edited.parent, rng.uniform(0.05, 0.99), edited.parameters, edited.wanted)
    return asked, write_delta(edited.parent, edited.child, "search_replace")


def sample_drill_document(rng: random.Random) -> tuple[str, str]:
    """Draw an exercise in quoting lines exactly, as (prompt, one search-and-replace block that takes them out)."""
    task = pick(rng, SHAPES), pick(rng, CLASSES), pick(rng, BUDGETS)
    lines, quoted = sample_drill(rng, *task)
    wanted = rng.choice(list(WANTED))
    asked = edit_prompt(*task, lines, rng.uniform(0.05, 0.99), rng.randrange(1_000, 500_000), wanted)
    return asked, "\n".join((SEARCH, *quoted, DIVIDER, REPLACE, ""))
