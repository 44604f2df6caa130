"""Plans: what a random network does, before it is spelled.

In: a seeded `random.Random`, the shape of the images, the number of classes and the parameter budget. Out: a `Plan`,
whose sizes and parameter count are known without importing torch. The weights below decide how often each idea is
drawn: weak ideas (no normalisation, deep plain stacks, saturating activations) are common and strong ones present, so
that a model trained on the programs has room to learn.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from nas_ray.grammar.layers import CHANNEL_FACTOR, HALVES, BlockPlan, Width, build_block

T = TypeVar("T")
Shape = tuple[int, int, int]  # channels, height, width

DEPTHS = {1: 10, 2: 22, 3: 26, 4: 20, 5: 13, 6: 9}
WIDTHS = {4: 10, 8: 16, 12: 10, 16: 20, 24: 12, 32: 18, 48: 6, 64: 7, 96: 2}
KERNELS = {1: 10, 3: 60, 5: 20, 7: 6}
KINDS = {
    "plain": 62,
    "residual": 9,
    "residual2": 5,
    "branches_add": 5,
    "branches_cat": 5,
    "separable": 8,
    "bottleneck": 6,
}
NORMS = {"none": 56, "batch": 30, "group1": 7, "group2": 7}
ACTIVATIONS = {"relu": 28, "leaky": 9, "gelu": 8, "silu": 9, "elu": 7, "tanh": 13, "sigmoid": 11, "none": 6}
SHRINKS = {"none": 34, "max": 24, "avg": 16, "stride": 12, "both_add": 4, "both_cat": 3, "parallel": 4}
HEADS = {"flatten": 50, "average": 30, "maximum": 20}
STYLES = {"attributes": 18, "blocks": 20, "features": 32, "helper": 15, "loop": 15}
# Share of plans that exceed the budget, where one is found in this many draws: `too_large` must stay an outcome to
# learn from.
CARELESS = 0.05
CARELESS_DRAWS = 40


@dataclass(frozen=True)
class Head:
    """From feature maps to logits; `hidden` is the width of an extra layer in between, or 0."""

    kind: str  # flatten, average, maximum
    hidden: int
    activation: str
    dropout: float | None


@dataclass(frozen=True)
class Plan:
    """A whole network; `style` says which spelling it is made for, since some spellings hold only uniform plans."""

    in_shape: Shape
    classes: int
    style: str
    blocks: tuple[BlockPlan, ...]
    head: Head

    def steps(self) -> Iterator[tuple[BlockPlan, Width, Shape]]:
        """Each block, the channels that come in, and the (C, H, W) that leave: below 1 where a plan pools too often."""
        c_in = Width(self.in_shape[0], "in_shape[1]")
        _, height, width = self.in_shape
        for block in self.blocks:
            height, width = (_size_after(block, size) for size in (height, width))
            channels = block.width * CHANNEL_FACTOR.get(block.shrink, 1)
            yield block, c_in, (channels, height, width)
            c_in = Width.of(channels)

    def out_shape(self) -> Shape:
        """(C, H, W) of the last feature maps."""
        return list(self.steps())[-1][2]

    def features(self) -> int:
        """Length of the vector that the head reads."""
        channels, height, width = self.out_shape()
        return channels * height * width if self.head.kind == "flatten" else channels

    def parameters(self) -> int:
        """Trainable parameters of the network."""
        hidden = self.head.hidden
        head = (self.features() + 1) * (hidden or self.classes) + ((hidden + 1) * self.classes if hidden else 0)
        return head + sum(self._block_parameters(block, c_in) for block, c_in, _ in self.steps())

    def _block_parameters(self, block: BlockPlan, c_in: Width) -> int:
        symbolic = self.style in ("helper", "loop")
        names = (Width(c_in.value, "c_in"), Width(block.width, "c_out")) if symbolic else (c_in, Width.of(block.width))
        return build_block(block, *names).parameters


def sample_plan(rng: random.Random, in_shape: Shape, classes: int, parameters: int, *, overpool: bool = False) -> Plan:
    """Draw a plan that fits the budget, or exceeds it in a `CARELESS` share of the draws.

    `overpool` draws a plan that halves its maps below one pixel: a mistake a program can hold.
    """
    if not overpool and rng.random() < CARELESS:
        for _ in range(CARELESS_DRAWS):
            plan = _draw(rng, in_shape, classes, overpool)
            if plan.parameters() > parameters:
                return plan
    while True:
        plan = _draw(rng, in_shape, classes, overpool)
        if overpool and min(plan.out_shape()[1:]) > 0:
            continue
        if overpool or plan.parameters() <= parameters:
            return plan


def _draw(rng: random.Random, in_shape: Shape, classes: int, overpool: bool) -> Plan:
    style = "attributes" if overpool else pick(rng, STYLES)
    uniform = style in ("helper", "loop") or rng.random() < 0.9
    shared = _block(rng)
    if uniform:
        shared = replace(shared, padded=True)
    if style == "loop":
        shared = replace(shared, kind="plain", gated=False, shrink=rng.choice(["none", "max", "avg", "stride"]))
    width = pick(rng, WIDTHS)
    blocks: list[BlockPlan] = []
    size = min(in_shape[1:])
    channels = in_shape[0]
    for _ in range(pick(rng, DEPTHS) + 2 * overpool):
        block = shared if uniform else _block(rng)
        if style == "features":
            block = replace(block, kind="plain", gated=False)
        shrink = block.shrink if style == "loop" else pick(rng, SHRINKS)
        if overpool and rng.random() < 0.6:
            shrink = rng.choice(["max", "avg"])
        block = replace(block, width=width, shrink=shrink)
        block = _compatible(block, style, channels, size, overpool)
        if style == "loop" and block.shrink != shared.shrink:
            break  # the maps are too small for one more turn of the loop
        blocks.append(block)
        size = _size_after(block, size)
        channels = width * CHANNEL_FACTOR.get(block.shrink, 1)
        width = _next_width(rng, width)
    return Plan(
        in_shape,
        classes,
        style,
        tuple(blocks) or (replace(shared, width=width, shrink="none", padded=True),),
        _head(rng),
    )


def fit_blocks(blocks: Sequence[BlockPlan], style: str, in_shape: Shape) -> tuple[BlockPlan, ...]:
    """Blocks of a plan that was changed, with what the spelling or the size of the maps cannot hold changed too."""
    fitted: list[BlockPlan] = []
    channels, size = in_shape[0], min(in_shape[1:])
    for wanted in blocks:
        block = _compatible(wanted, style, channels, size, overpool=False)
        if style == "loop" and block.shrink != wanted.shrink and fitted:
            break  # the maps are too small for one more turn of the loop
        fitted.append(block)
        size = _size_after(block, size)
        channels = block.width * CHANNEL_FACTOR.get(block.shrink, 1)
    return tuple(fitted)


def _block(rng: random.Random) -> BlockPlan:
    rate = rng.choice([0.1, 0.2, 0.25, 0.3, 0.5, 0.0]) if rng.random() < 0.2 else None
    return BlockPlan(
        kind=pick(rng, KINDS),
        width=0,
        kernel=pick(rng, KERNELS),
        padded=rng.random() < 0.85,
        norm=pick(rng, NORMS),
        activation=pick(rng, ACTIVATIONS),
        shrink=pick(rng, SHRINKS),
        dropout=rate,
        gated=rng.random() < 0.06,
    )


def _compatible(block: BlockPlan, style: str, channels: int, size: int, overpool: bool) -> BlockPlan:
    """Change what the spelling or the size of the maps cannot hold."""
    if block.kind != "plain" or size < block.kernel:
        block = replace(block, padded=True)
    if block.kind in ("residual", "residual2") and block.activation == "none" and channels == block.width:
        block = replace(block, activation="relu")  # x + conv(x) alone is one more linear step
    if style == "helper" and block.shrink == "stride":
        block = replace(block, shrink="max")
    if style == "features" and block.shrink in ("both_add", "both_cat", "parallel"):
        block = replace(block, shrink="max")
    left = size if block.padded else size - block.kernel + 1
    if not overpool and left < 2 and block.shrink in HALVES:
        block = replace(block, shrink="none")
    return block


def _next_width(rng: random.Random, width: int) -> int:
    turn = rng.random()
    if turn < 0.45:
        return width
    if turn < 0.88:
        return min(96, width * 2)
    return pick(rng, WIDTHS)


def _head(rng: random.Random) -> Head:
    hidden = rng.choice([16, 32, 64, 128, 256, 512, 1024]) if rng.random() < 0.3 else 0
    rate = rng.choice([0.1, 0.2, 0.25, 0.3, 0.5, 0.0]) if rng.random() < 0.2 else None
    return Head(pick(rng, HEADS), hidden, pick(rng, ACTIVATIONS), rate)


def _size_after(block: BlockPlan, size: int) -> int:
    if not block.padded:
        size = size - block.kernel + 1
    if block.shrink == "stride":
        return (size + 1) // 2
    return size // 2 if block.shrink in HALVES else size


def pick(rng: random.Random, weights: dict[T, int]) -> T:
    """Draw one key of a table of weights."""
    return rng.choices(list(weights), list(weights.values()))[0]
