"""Spelling: one plan, many ways to write it down.

In: a `Plan` and a seeded `random.Random`. Out: the text of a program. Modules or functions for the same step, one
line or many for a block, attributes, `nn.Sequential`, a helper class or a loop: the choice is drawn once for each
program, as a person's habits would be.
"""

import random
from dataclasses import dataclass

from nas_ray.grammar.layers import Block, Layer, Width, activation, build_block, dropout
from nas_ray.grammar.plan import Plan

IMPORTS = "import torch\nimport torch.nn as nn\nimport torch.nn.functional as F\n"
SIGNATURE = "    def __init__(self, in_shape, out_shape, prm, device):"
# Calls inside calls on one line, at most.
NESTING = 3


@dataclass(frozen=True)
class Habits:
    """How the author of a program likes to write."""

    modules: bool  # activations and poolings as modules rather than functions
    nested: bool  # a block on one line of the forward pass
    norm: str  # attribute names
    conv: str
    flatten: str  # expression that flattens {x}
    average: str  # expression that averages the maps of {x}
    maximum: str
    size: str  # product, number or symbol: how the length of the flattened vector is written
    head: str

    @classmethod
    def draw(cls, rng: random.Random) -> "Habits":
        return cls(
            modules=rng.random() < 0.3,
            nested=rng.random() < 0.6,
            norm=rng.choice(["bn", "norm"]),
            conv=rng.choice(["conv", "conv", "c"]),
            flatten=rng.choice(["torch.flatten({x}, 1)", "{x}.flatten(1)", "{x}.view({x}.size(0), -1)"]),
            average=rng.choice(["{x}.mean((2, 3))", "F.adaptive_avg_pool2d({x}, 1).flatten(1)"]),
            maximum=rng.choice(["{x}.amax((2, 3))", "F.adaptive_max_pool2d({x}, 1).flatten(1)"]),
            size=rng.choice(["product", "product", "symbol", "symbol", "symbol", "number"]),
            head=rng.choice(["head", "head", "fc", "classifier"]),
        )


class Writer:
    """The two methods of one class, filled line by line."""

    def __init__(self, habits: Habits) -> None:
        self.habits = habits
        self.init: list[str] = []
        self.forward: list[str] = []
        self._counts: dict[str, int] = {}

    def attribute(self, stem: str, code: str) -> str:
        """Add `self.<stem><n> = code` and return its name."""
        names = {"conv": self.habits.conv, "norm": self.habits.norm}
        stem = names.get(stem, stem)
        self._counts[stem] = self._counts.get(stem, 0) + 1
        name = f"self.{stem}{self._counts[stem]}"
        self.init.append(f"{name} = {code}")
        return name

    def apply(self, layer: Layer, x: str) -> str:
        """Expression for one step on the expression `x`; a step whose form repeats its input needs a plain name
        there.
        """
        functional = layer.call is not None and (layer.code is None or not self.habits.modules)
        if functional and layer.call is not None:
            return layer.call.replace("{x}", x)
        return f"{self.attribute(layer.stem, layer.code or '')}({x})"

    def chain(self, layers: tuple[Layer, ...], source: str, target: str) -> None:
        """Lines that take `source` through the layers into `target`."""
        x = source
        for layer in layers:
            repeats = layer.call is not None and layer.call.count("{x}") > 1
            if x.count("(") and (repeats or not self.habits.nested or x.count("(") >= NESTING):
                self.forward.append(f"{target} = {x}")
                x = target
            x = self.apply(layer, x)
        if x != target:
            self.forward.append(f"{target} = {x}")

    def sequential(self, stem: str, layers: tuple[Layer, ...]) -> str:
        """Add an `nn.Sequential` of layers that all have a module form, and return its name."""
        if len(layers) == 1:
            return self.attribute(stem, layers[0].code or "")
        lines = "".join(f"    {layer.code},\n" for layer in layers)
        return self.attribute(stem, f"nn.Sequential(\n{lines})")

    def block(self, block: Block, *, as_sequential: bool) -> None:
        """Spell one block on `x`."""
        if as_sequential and not block.join:
            self._block_sequential(block)
        else:
            self._block_attributes(block)
        if block.gate:
            gate = self.attribute("gate", block.gate.code or "")
            self.forward.append(f"x = x * torch.sigmoid({gate}(x.mean((2, 3), keepdim=True)))")

    def _block_attributes(self, block: Block) -> None:
        if block.join:
            names = [self.attribute("conv", path[0].code or "") for path in block.paths]
            parts = [f"{name}(x)" for name in names]
            joined = " + ".join(parts) if block.join == "add" else f"torch.cat([{', '.join(parts)}], 1)"
            self.forward.append(f"x = {joined}")
            self.chain(block.after, "x", "x")
        elif block.residual:
            normed = tuple(layer for layer in block.after if layer.stem == "norm")
            self.chain(block.paths[0] + normed, "x", "y")
            self.chain(block.after[len(normed) :], f"y + {self._shortcut(block)}", "x")
        else:
            self.chain(block.paths[0] + block.after, "x", "x")

    def _block_sequential(self, block: Block) -> None:
        if block.residual:
            normed = tuple(layer for layer in block.after if layer.stem == "norm")
            name = self.sequential("block", block.paths[0] + normed)
            self.chain(block.after[len(normed) :], f"{name}(x) + {self._shortcut(block)}", "x")
        else:
            name = self.sequential("block", block.paths[0] + block.after)
            self.forward.append(f"x = {name}(x)")

    def _shortcut(self, block: Block) -> str:
        return f"{self.attribute('skip', block.skip.code or '')}(x)" if block.skip else "x"

    def methods(self, signature: str, result: str) -> str:
        """The text of the two methods; `result` is the expression that the forward pass returns."""
        init = "\n".join(self.init).split("\n")
        lines = [signature, "        super().__init__()", *(f"        {line}" for line in init)]
        lines += [
            "",
            "    def forward(self, x):",
            *(f"        {line}" for line in self.forward),
            f"        return {result}",
            "",
        ]
        return "\n".join(lines)


def spell(plan: Plan, rng: random.Random) -> str:
    """Write a plan as a program that follows the candidate contract."""
    habits = Habits.draw(rng)
    writer = Writer(habits)
    helper = _spell_blocks(plan, writer)
    result = _spell_head(plan, writer)
    return f"{IMPORTS}\n\n{helper}class Net(nn.Module):\n{writer.methods(SIGNATURE, result)}"


def _spell_blocks(plan: Plan, writer: Writer) -> str:
    """Spell all blocks; return the text of a helper class, or nothing."""
    if plan.style == "loop":
        _spell_loop(plan, writer)
    elif plan.style == "helper":
        return _spell_helper(plan, writer)
    elif plan.style == "features":
        layers: tuple[Layer, ...] = ()
        for traits, c_in, _ in plan.steps():
            block = build_block(traits, c_in, Width.of(traits.width))
            layers += block.paths[0] + block.after + block.tail
        lines = "".join(f"    {layer.code},\n" for layer in layers)
        writer.init.append(f"self.features = nn.Sequential(\n{lines})")
        writer.forward.append("x = self.features(x)")
    else:
        for traits, c_in, _ in plan.steps():
            block = build_block(traits, c_in, Width.of(traits.width))
            writer.block(block, as_sequential=plan.style == "blocks")
            writer.chain(block.tail, "x", "x")
    return ""


def _spell_helper(plan: Plan, writer: Writer) -> str:
    """A class for the block that repeats; poolings stay in the network's forward pass."""
    inside = Writer(writer.habits)
    c_in, c_out = Width(0, "c_in"), Width(plan.blocks[0].width, "c_out")
    inside.block(build_block(plan.blocks[0], c_in, c_out), as_sequential=False)
    result = inside.forward.pop().removeprefix("x = ")  # every block ends with a step on x
    for traits, came_in, _ in plan.steps():
        name = writer.attribute("block", f"Block({came_in.text}, {traits.width})")
        writer.forward.append(f"x = {name}(x)")
        writer.chain(build_block(traits, came_in, Width.of(traits.width)).tail, "x", "x")
    return f"class Block(nn.Module):\n{inside.methods('    def __init__(self, c_in, c_out):', result)}\n\n"


def _spell_loop(plan: Plan, writer: Writer) -> None:
    """A loop over the widths that fills a list of layers."""
    block = build_block(plan.blocks[0], Width(0, "channels"), Width(plan.blocks[0].width, "width"))
    layers = block.paths[0] + block.after + block.tail
    widths = ", ".join(str(traits.width) for traits in plan.blocks)
    writer.init += [
        "layers = []",
        "channels = in_shape[1]",
        f"for width in [{widths}]:",
        *(f"    layers.append({layer.code})" for layer in layers),
        "    channels = width",
        "self.features = nn.Sequential(*layers)",
    ]
    writer.forward.append("x = self.features(x)")


def _spell_head(plan: Plan, writer: Writer) -> str:
    """Spell the head and return the expression of the logits."""
    habits = writer.habits
    to_vector = {"flatten": habits.flatten, "average": habits.average, "maximum": habits.maximum}[plan.head.kind]
    writer.forward.append(f"x = {to_vector.replace('{x}', 'x')}")
    features = _features_text(plan, habits)
    inside = dropout(plan.head.dropout, flat=True)
    if plan.head.hidden:
        hidden = Layer("fc", f"nn.Linear({features}, {plan.head.hidden})")
        writer.chain((hidden, *activation(plan.head.activation), *inside), "x", "x")
        features = str(plan.head.hidden)
    else:
        writer.chain(inside, "x", "x")
    name = f"self.{habits.head}"
    writer.init.append(f"{name} = nn.Linear({features}, out_shape[0])")
    return f"{name}(x)"


def _features_text(plan: Plan, habits: Habits) -> str:
    channels, height, width = (max(1, size) for size in plan.out_shape())
    if plan.head.kind != "flatten":
        return str(channels)
    if habits.size == "number":
        return str(channels * height * width)
    halvings = sum(block.shrink in ("max", "avg", "both_add", "both_cat") for block in plan.blocks)
    exact = all(block.padded and block.shrink != "stride" for block in plan.blocks)
    if habits.size == "symbol" and exact:
        factor = "" if not halvings else f" // {2**halvings}"
        return f"{channels} * (in_shape[2]{factor}) * (in_shape[3]{factor})"
    return f"{channels} * {height} * {width}"
