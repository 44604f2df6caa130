"""Layers and blocks: the building stones of a random program, as code text with their parameter counts.

In: the traits of a block (`BlockPlan`) and its channel counts. Out: a `Block`, which a `Writer` (see `spelling`)
spells as Python.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Width:
    """A channel count: its value, and the text that stands for it in a program (`32`, `in_shape[1]`, `c_out`)."""

    value: int
    text: str

    @classmethod
    def of(cls, value: int) -> "Width":
        return cls(value, str(value))


@dataclass(frozen=True)
class Layer:
    """One step of a forward pass.

    stem: name of the attribute that would hold it, without its number.
    code: constructor call, or None when the step has no module form.
    call: functional form with `{x}` for its input, or None when the step has weights.
    parameters: number of trainable parameters.
    """

    stem: str
    code: str | None
    call: str | None = None
    parameters: int = 0


@dataclass(frozen=True)
class BlockPlan:
    """The traits of one block; `plan` holds the tables of their values.

    kind: plain, residual, residual2 (two convolutions), branches_add, branches_cat, separable, bottleneck.
    shrink: none, max, avg, stride, both_add, both_cat, parallel (three poolings side by side, no smaller).
    """

    kind: str
    width: int  # output channels, before the poolings that multiply them
    kernel: int  # pixels, odd
    padded: bool  # keeps height and width
    norm: str
    activation: str
    shrink: str
    dropout: float | None  # None: no dropout; 0.0: the rate is prm["dropout"]
    gated: bool  # squeeze-excite with one layer


@dataclass(frozen=True)
class Block:
    """A block ready to be spelled: paths -> join or shortcut -> after -> gate -> tail."""

    paths: tuple[tuple[Layer, ...], ...]
    join: str  # "", "add" or "cat": how several paths become one
    residual: bool
    skip: Layer | None  # projection of the shortcut; None: the input itself
    after: tuple[Layer, ...]
    gate: Layer | None
    tail: tuple[Layer, ...]

    @property
    def parameters(self) -> int:
        layers = [layer for path in self.paths for layer in path] + list(self.after) + list(self.tail)
        return sum(layer.parameters for layer in layers + [one for one in (self.skip, self.gate) if one])


ACTIVATIONS: dict[str, tuple[str, str]] = {
    "relu": ("nn.ReLU()", "F.relu({x})"),
    "leaky": ("nn.LeakyReLU(0.1)", "F.leaky_relu({x}, 0.1)"),
    "gelu": ("nn.GELU()", "F.gelu({x})"),
    "silu": ("nn.SiLU()", "F.silu({x})"),
    "elu": ("nn.ELU()", "F.elu({x})"),
    "tanh": ("nn.Tanh()", "torch.tanh({x})"),
    "sigmoid": ("nn.Sigmoid()", "torch.sigmoid({x})"),
}
POOLINGS: dict[str, tuple[str | None, str]] = {
    "max": ("nn.MaxPool2d(2)", "F.max_pool2d({x}, 2)"),
    "avg": ("nn.AvgPool2d(2)", "F.avg_pool2d({x}, 2)"),
    "both_add": (None, "F.max_pool2d({x}, 2) + F.avg_pool2d({x}, 2)"),
    "both_cat": (None, "torch.cat([F.max_pool2d({x}, 2), F.avg_pool2d({x}, 2)], 1)"),
    "parallel": (None, "torch.cat([{x}, F.max_pool2d({x}, 3, 1, 1), F.avg_pool2d({x}, 3, 1, 1)], 1)"),
}
CHANNEL_FACTOR = {"both_cat": 2, "parallel": 3}
HALVES = ("max", "avg", "stride", "both_add", "both_cat")


def conv(
    c_in: Width,
    c_out: Width,
    kernel: int,
    *,
    padded: bool = True,
    stride: int = 1,
    depthwise: bool = False,
    bias: bool = True,
) -> Layer:
    """A 2-D convolution; `depthwise` needs c_in == c_out."""
    padding = kernel // 2 if padded else 0
    options = [f"stride={stride}"] * (stride > 1) + [f"padding={padding}"] * (padding > 0)
    options += [f"groups={c_in.text}"] * depthwise + ["bias=False"] * (not bias)
    code = f"nn.Conv2d({', '.join([c_in.text, c_out.text, str(kernel), *options])})"
    fan_in = (1 if depthwise else c_in.value) * kernel * kernel
    return Layer("conv", code, parameters=c_out.value * (fan_in + bias))


def norm(kind: str, channels: Width) -> tuple[Layer, ...]:
    """A normalisation layer, or nothing for `none`; group counts divide every even channel count."""
    if kind == "none":
        return ()
    code = f"nn.BatchNorm2d({channels.text})" if kind == "batch" else f"nn.GroupNorm({kind[-1]}, {channels.text})"
    return (Layer("norm", code, parameters=2 * channels.value),)


def activation(kind: str) -> tuple[Layer, ...]:
    """An activation, or nothing for `none`."""
    return () if kind == "none" else (Layer("act", *ACTIVATIONS[kind]),)


def dropout(rate: float | None, *, flat: bool = False) -> tuple[Layer, ...]:
    """Dropout of whole channels, or of single values after flattening; 0.0 stands for the hyperparameter."""
    if rate is None:
        return ()
    text = f"{rate}" if rate else 'prm["dropout"]'
    name = "Dropout" if flat else "Dropout2d"
    call = f"F.dropout({{x}}, {text}, self.training)" if rate else None
    return (Layer("drop", f"nn.{name}({text})", call),)


def build_block(plan: BlockPlan, c_in: Width, c_out: Width) -> Block:
    """Turn traits into layers; `c_out` must hold plan.width, `c_in` the channels that come in."""
    stride = 2 if plan.shrink == "stride" else 1
    after = norm(plan.norm, c_out) + activation(plan.activation)
    join, residual = "", False
    skip: Layer | None = None
    first = conv(c_in, c_out, plan.kernel, padded=plan.padded, stride=stride, bias=plan.norm == "none")
    paths: tuple[tuple[Layer, ...], ...] = ((first,),)
    if plan.kind == "separable":
        depth = conv(c_in, c_in, plan.kernel, padded=plan.padded, stride=stride, depthwise=True)
        paths = ((depth, conv(c_in, c_out, 1)),)
    elif plan.kind == "bottleneck":
        # The narrow middle cannot be computed from a symbolic width without an expression, so it is spelled as one.
        narrow = max(1, c_out.value // 4)
        middle = Width.of(narrow) if c_out.text.isdigit() else Width(narrow, f"{c_out.text} // 4")
        inside = conv(middle, middle, plan.kernel, padded=plan.padded, stride=stride)
        paths = ((conv(c_in, middle, 1), inside, *activation(plan.activation), conv(middle, c_out, 1)),)
    elif plan.kind.startswith("branches"):
        join = plan.kind.removeprefix("branches_")
        half = Width.of(c_out.value // 2) if c_out.text.isdigit() else Width(c_out.value // 2, f"{c_out.text} // 2")
        each = half if join == "cat" else c_out
        paths = tuple((conv(c_in, each, kernel, stride=stride),) for kernel in (1, max(3, plan.kernel)))
    elif plan.kind.startswith("residual"):
        residual = True
        if plan.kind == "residual2":
            second = conv(c_out, c_out, plan.kernel, bias=plan.norm == "none")
            paths = ((first, *after, second),)
        skip = _projection(c_in, c_out, stride)
    gate = Layer("gate", conv(c_out, c_out, 1).code, parameters=c_out.value * (c_out.value + 1)) if plan.gated else None
    pooling = (Layer("pool", *POOLINGS[plan.shrink]),) if plan.shrink in POOLINGS else ()
    return Block(paths, join, residual, skip, after, gate, pooling + dropout(plan.dropout))


def _projection(c_in: Width, c_out: Width, stride: int) -> Layer | None:
    projection = conv(c_in, c_out, 1, stride=stride)
    known = c_out.text.isdigit()
    if c_in.value == c_out.value and stride == 1 and known:
        return None
    if known:
        return Layer("skip", projection.code, parameters=projection.parameters)
    code = f"nn.Identity() if {c_in.text} == {c_out.text} else {projection.code}"
    return Layer("skip", code, parameters=0 if c_in.value == c_out.value else projection.parameters)
