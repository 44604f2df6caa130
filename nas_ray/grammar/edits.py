"""Edits: a program of the grammar and another one that differs from it in one idea, written by the same author.

In: a seeded `random.Random` and a task. Out: parent, child, and what the edit was for. The plan of the parent is
changed in one trait (a width, a kernel, a normalisation, a block more or less, ...) and both plans are spelled with the
same habits, so that the difference between the two texts is as small as the change.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from nas_ray.grammar.layers import BlockPlan
from nas_ray.grammar.mistakes import spoil
from nas_ray.grammar.plan import (
    ACTIVATIONS,
    HEADS,
    KERNELS,
    KINDS,
    NORMS,
    SHRINKS,
    WIDTHS,
    Plan,
    Shape,
    fit_blocks,
    pick,
    sample_plan,
)
from nas_ray.grammar.spelling import spell

UNIFORM = ("helper", "loop")  # spellings that hold one kind of block only
DRAWS = 40  # edits tried on one parent before another parent is drawn
# Share of edits that are said to be for accuracy, whatever they do: the grammar does not know what helps.
FOR_ACCURACY = 0.6


@dataclass(frozen=True)
class EditedProgram:
    """Two programs for one task; `wanted` is a word of `nas_ray.config.DeltaConfig.wanted`."""

    parent: str
    child: str
    parameters: int  # of the parent
    wanted: str


def sample_edit(
    rng: random.Random, in_shape: Shape, classes: int, parameters: int, *, mistakes: float = 0.0
) -> EditedProgram:
    """Draw a program that runs and an edit of it; a share `mistakes` of the edits makes one that does not."""
    while True:
        plan = sample_plan(rng, in_shape, classes, parameters, overpool=False)
        if plan.parameters() > parameters:
            continue
        for _ in range(DRAWS):
            edited = _edit(plan, rng)
            if edited == plan or min(edited.out_shape()[1:]) < 1 or edited.parameters() > parameters:
                continue
            seed = rng.getrandbits(64)
            parent, child = (spell(one, random.Random(seed)) for one in (plan, edited))
            if parent == child:
                continue
            wanted = _purpose(rng, plan.parameters(), edited.parameters())
            if rng.random() < mistakes:
                child = spoil(child, rng)
            if parent != child:
                return EditedProgram(parent, child, plan.parameters(), wanted)


def sample_drill(rng: random.Random, in_shape: Shape, classes: int, parameters: int) -> tuple[str, tuple[str, ...]]:
    """Draw lines of a program in any order, with any numbers, and some neighbours among them, to be quoted.

    Nothing but the lines themselves says how such a quotation goes on, so that it can only be learned as copying: what
    every edit begins with, and what a small model hardly learns from edits, which quote a line or two that it could as
    well have guessed.
    """
    program = spell(sample_plan(rng, in_shape, classes, parameters), rng)
    lines = [line for line in program.split("\n") if line.strip()]
    lines = [
        re.sub(r"(?<![A-Za-z_])\d+", lambda _: str(pick(rng, WIDTHS)), line) if rng.random() < 0.7 else line
        for line in lines
    ]
    rng.shuffle(lines)
    lines = lines[: rng.randint(4, 14)]
    count = rng.randint(1, 6)
    first = rng.randrange(max(1, len(lines) - count))
    return "\n".join(lines), tuple(lines[first : first + count])


def _purpose(rng: random.Random, before: int, after: int) -> str:
    if rng.random() < FOR_ACCURACY:
        return "accuracy"
    if before == after or rng.random() < 0.3:
        return "different"
    return "smaller" if after < before else "larger"


def _edit(plan: Plan, rng: random.Random) -> Plan:
    """The plan with one trait changed; the same plan where the trait drawn cannot be changed."""
    (change,) = rng.choices(list(CHANGES), list(CHANGES.values()))
    return change(plan, rng)


def _with_blocks(plan: Plan, blocks: Sequence[BlockPlan]) -> Plan:
    return replace(plan, blocks=fit_blocks(blocks, plan.style, plan.in_shape)) if blocks else plan


def _one_block(plan: Plan, rng: random.Random, change: Callable[[BlockPlan], BlockPlan]) -> Plan:
    """`change` made to one block, or to all of a uniform plan."""
    chosen = rng.randrange(len(plan.blocks))
    everywhere = plan.style in UNIFORM
    return _with_blocks(
        plan, [change(block) if everywhere or place == chosen else block for place, block in enumerate(plan.blocks)]
    )


def _change_norm(plan: Plan, rng: random.Random) -> Plan:
    norm = pick(rng, NORMS)
    if rng.random() < 0.5:
        return _with_blocks(plan, [replace(block, norm=norm) for block in plan.blocks])
    return _one_block(plan, rng, lambda block: replace(block, norm=norm))


def _change_activation(plan: Plan, rng: random.Random) -> Plan:
    activation = pick(rng, ACTIVATIONS_OF_BLOCKS)
    if rng.random() < 0.5:
        return _with_blocks(plan, [replace(block, activation=activation) for block in plan.blocks])
    return _one_block(plan, rng, lambda block: replace(block, activation=activation))


def _change_kernel(plan: Plan, rng: random.Random) -> Plan:
    kernel = pick(rng, KERNELS)
    return _one_block(plan, rng, lambda block: replace(block, kernel=kernel))


def _change_kind(plan: Plan, rng: random.Random) -> Plan:
    if plan.style in ("loop", "features"):
        return plan
    kind = pick(rng, KINDS)
    return _one_block(plan, rng, lambda block: replace(block, kind=kind))


def _change_shrink(plan: Plan, rng: random.Random) -> Plan:
    shrink = rng.choice(["none", "max", "avg", "stride"]) if plan.style == "loop" else pick(rng, SHRINKS)
    chosen = rng.randrange(len(plan.blocks))
    everywhere = plan.style == "loop"
    return _with_blocks(
        plan,
        [
            replace(block, shrink=shrink) if everywhere or place == chosen else block
            for place, block in enumerate(plan.blocks)
        ],
    )


def _change_width(plan: Plan, rng: random.Random) -> Plan:
    """One block's width; each block has its own, also in a uniform plan."""
    chosen, width = rng.randrange(len(plan.blocks)), pick(rng, WIDTHS)
    return _with_blocks(
        plan, [replace(block, width=width) if place == chosen else block for place, block in enumerate(plan.blocks)]
    )


def _change_dropout(plan: Plan, rng: random.Random) -> Plan:
    rate = rng.choice([None, 0.1, 0.2, 0.25, 0.3, 0.5, 0.0])
    if rng.random() < 0.5:
        return replace(plan, head=replace(plan.head, dropout=rate))
    return _one_block(plan, rng, lambda block: replace(block, dropout=rate))


def _change_head(plan: Plan, rng: random.Random) -> Plan:
    return replace(plan, head=replace(plan.head, kind=pick(rng, HEADS)))


def _change_hidden(plan: Plan, rng: random.Random) -> Plan:
    hidden = rng.choice([0, 0, 16, 32, 64, 128, 256, 512])
    return replace(plan, head=replace(plan.head, hidden=hidden))


def _add_block(plan: Plan, rng: random.Random) -> Plan:
    place = rng.randrange(len(plan.blocks))
    block = plan.blocks[place]
    if plan.style != "loop":
        block = replace(block, shrink="none")
    return _with_blocks(plan, [*plan.blocks[: place + 1], block, *plan.blocks[place + 1 :]])


def _remove_block(plan: Plan, rng: random.Random) -> Plan:
    place = rng.randrange(len(plan.blocks))
    return _with_blocks(plan, [*plan.blocks[:place], *plan.blocks[place + 1 :]])


ACTIVATIONS_OF_BLOCKS = {kind: weight for kind, weight in ACTIVATIONS.items() if kind != "none"}
CHANGES: dict[Callable[[Plan, random.Random], Plan], int] = {
    _change_norm: 20,
    _change_width: 16,
    _change_activation: 14,
    _change_kernel: 10,
    _change_shrink: 10,
    _change_head: 8,
    _change_hidden: 8,
    _add_block: 8,
    _change_kind: 6,
    _remove_block: 5,
    _change_dropout: 5,
}
