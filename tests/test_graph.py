"""The signature is a function of what a network computes, and of nothing else."""

from __future__ import annotations

import pytest
import torch
from candidate_programs import GOOD, write_program
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from nas_ray.build import build_program, load_net
from nas_ray.candidate import Build
from nas_ray.config import BudgetConfig

IN_SHAPE, OUT_SHAPE = (1, 3, 8, 8), (10,)
BUDGET = BudgetConfig(parameters=10_000_000)


def build(code: str) -> Build:
    built = build_program(code, IN_SHAPE, OUT_SHAPE, {"lr": 0.01, "dropout": 0.2}, BUDGET)
    assert isinstance(built, Build), built
    return built


PLAIN = write_program(
    """
    self.a = nn.Conv2d(3, 8, 3, padding=1)
    self.b = nn.Conv2d(8, 8, 3, padding=1)
    self.bn = nn.BatchNorm2d(8)
    self.drop = nn.Dropout(0.2)
    self.head = nn.Linear(8, 10)
    """,
    """
    y = F.relu(self.bn(self.a(x)))
    y = y + self.b(y)
    y = self.drop(y.mean((2, 3)))
    return self.head(y)
    """,
)

REWRITTEN = write_program(
    """
    self.classifier = nn.Linear(in_features=8, out_features=out_shape[0])
    self.stem = nn.Sequential(nn.Conv2d(in_shape[1], 8, (3, 3), 1, "same"), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
    self.layers = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1)])
    self.p = 0.2
    self.to(device)
    """,
    """
    unused = torch.exp(x)
    h = self.stem(x)
    h = torch.add(self.layers[0](h), h)
    h = F.adaptive_avg_pool2d(h, 1)
    h = F.dropout(h.view(h.size(0), -1), self.p, self.training)
    return self.classifier(h)
    """,
)


def test_same_network_written_differently_has_the_same_signature() -> None:
    assert build(PLAIN).graph == build(REWRITTEN).graph


def test_signature_does_not_depend_on_the_process_or_on_earlier_builds() -> None:
    first = build(PLAIN).graph
    build(GOOD)
    assert build(PLAIN).graph == first


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("F.relu(", "F.gelu("),
        ("nn.Conv2d(8, 8, 3, padding=1)", "nn.Conv2d(8, 8, 5, padding=2)"),
        ("nn.Conv2d(8, 8, 3, padding=1)", "nn.Conv2d(8, 8, 3, padding=1, groups=8)"),
        ("nn.Conv2d(8, 8, 3, padding=1)", "nn.Conv2d(8, 8, 3, padding=1, bias=False)"),
        ("y = y + self.b(y)", "y = y * self.b(y)"),
        ("y = y + self.b(y)", "y = y - self.b(y)"),
        ("y = y + self.b(y)", "y = self.b(y)"),
        ("nn.Dropout(0.2)", "nn.Dropout(0.3)"),
        ("y.mean((2, 3))", "y.amax((2, 3))"),
        ("y.mean((2, 3))", "y.mean((1, 2))"),
        ("self.head = nn.Linear(8, 10)", "self.head = nn.Linear(8, 10); nn.init.zeros_(self.head.weight)"),
        ("self.head = nn.Linear(8, 10)", "self.head = nn.Linear(8, 10); self.head.bias.requires_grad_(False)"),
    ],
)
def test_a_different_network_has_a_different_signature(old: str, new: str) -> None:
    assert old in PLAIN
    assert build(PLAIN).graph != build(PLAIN.replace(old, new)).graph


def test_a_shared_layer_is_not_two_equal_layers() -> None:
    layers = "self.a = nn.Conv2d(3, 3, 1)\nself.b = nn.Conv2d(3, 3, 1)\nself.head = nn.Linear(192, 10)"
    shared = build(write_program(layers, "return self.head(self.a(self.a(x)).flatten(1))"))
    separate = build(write_program(layers, "return self.head(self.b(self.a(x)).flatten(1))"))
    assert shared.graph != separate.graph


def test_an_overwritten_initialisation_leaves_no_trace() -> None:
    once = "self.head = nn.Linear(192, 10)\nnn.init.normal_(self.head.weight, std=0.5)"
    twice = "self.head = nn.Linear(192, 10)\nnn.init.ones_(self.head.weight)\nnn.init.normal_(self.head.weight, 0, 0.5)"
    forward = "return self.head(x.flatten(1))"
    assert build(write_program(once, forward)).graph == build(write_program(twice, forward)).graph


def test_numbers_written_into_the_program_count() -> None:
    init = "self.head = nn.Linear(192, 10)\nself.register_buffer('scale', torch.tensor([{numbers}]))"
    forward = "return self.head((x * self.scale.view(1, 3, 1, 1)).flatten(1))"
    programs = [write_program(init.format(numbers=numbers), forward) for numbers in ("1.0, 2.0, 3.0", "1.0, 2.0, 4.0")]
    assert build(programs[0]).graph != build(programs[1]).graph
    assert build(programs[0]).device == "meta"


def test_a_write_into_a_part_of_a_tensor_counts() -> None:
    init = "self.head = nn.Linear(192, 10)"
    first = write_program(init, "y = x.clone()\ny[:, 0] = 0\nreturn self.head(y.flatten(1))")
    second = write_program(init, "y = x.clone()\ny[:, 1] = 0\nreturn self.head(y.flatten(1))")
    neither = write_program(init, "y = x.clone()\nreturn self.head(y.flatten(1))")
    assert len({build(code).graph for code in (first, second, neither)}) == 3


@pytest.mark.parametrize("code", [PLAIN, REWRITTEN, GOOD])
def test_flops_and_parameters_agree_with_pytorch(code: str) -> None:
    built = build(code)
    network = load_net(code)(IN_SHAPE, OUT_SHAPE, {}, torch.device("cpu"))
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(2, *IN_SHAPE[1:]))
    assert built.flops == counter.get_total_flops() // 2
    assert built.parameters == sum(parameter.numel() for parameter in network.parameters())


def test_activation_bytes_count_results_but_no_views() -> None:
    code = write_program("self.head = nn.Linear(192, 10)", "return self.head(x.relu().view(-1, 192).view(-1, 192))")
    assert build(code).activation_bytes == 4 * (192 + 10)


def test_what_a_factory_makes_is_no_activation_and_changes_no_signature() -> None:
    init = "self.head = nn.Linear(192, 10)"
    plain = build(write_program(init, "return self.head(x.relu().flatten(1))"))
    hoarding = build(write_program(init, "self.kept = torch.ones(1 << 40)\nreturn self.head(x.relu().flatten(1))"))
    assert hoarding.activation_bytes == plain.activation_bytes == 4 * (192 + 10)
    assert hoarding.graph == plain.graph


def test_a_dimension_counted_from_the_end_is_the_same_dimension() -> None:
    init = "self.head = nn.Linear(192, 10)"
    forward = "return self.head(torch.cat([x, x], {first})[:, :3].softmax({second}).flatten(1))"
    programs = [write_program(init, forward.format(first=a, second=b)) for a, b in ((1, 3), (-3, -1), (1, 2))]
    graphs = [build(code).graph for code in programs]
    assert graphs[0] == graphs[1] != graphs[2]


# One convolution of 6 channels in five spellings; {n} numbers it.
CONVOLUTIONS = (
    ("self.c{n} = nn.Conv2d(6, 6, 3, padding=1)", "y = self.c{n}(y)"),
    ("self.c{n} = nn.Conv2d(6, 6, 3, padding=1)", "y = F.conv2d(y, self.c{n}.weight, self.c{n}.bias, padding=1)"),
    ("self.c{n} = nn.Sequential(nn.Conv2d(6, 6, 1), nn.ReLU(inplace=True))", "y = self.c{n}(y)"),
    ("self.c{n} = nn.Conv2d(6, 6, 1)", "y = self.c{n}(y)\ny.relu_()"),
    ("self.c{n} = nn.Linear(6, 6)", "y = self.c{n}(y.movedim(1, -1)).movedim(-1, 1)"),
)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 3), st.booleans(), st.sampled_from(CONVOLUTIONS)), max_size=4))
def test_depth_counts_the_longest_path_in_whatever_spelling(blocks: list[tuple[int, bool, tuple[str, str]]]) -> None:
    init, forward, number = ["self.stem = nn.Conv2d(3, 6, 1)"], ["y = self.stem(x)"], 0
    for length, residual, (layer, call) in blocks:
        forward.append("kept = y")
        for _ in range(length):
            init.append(layer.format(n=number))
            forward.append(call.format(n=number))
            number += 1
        if residual:
            forward.append("y = kept + y")
    init.append("self.head = nn.Linear(6, 10)")
    forward.append("return self.head(y.mean((2, 3)))")
    assert build(write_program("\n".join(init), "\n".join(forward))).depth == 2 + number


@pytest.mark.parametrize(
    ("init", "forward", "depth"),
    [
        ("", "return self.head(x.flatten(1))", 1),
        ("", "return x.flatten(1) @ self.head.weight.T + self.head.bias", 1),
        ("", "return torch.einsum('bi,oi->bo', x.flatten(1), self.head.weight)", 1),
        ("self.norm = nn.BatchNorm2d(3)", "return self.head(self.norm(x).flatten(1))", 1),
        ("self.a = nn.Linear(64, 64)", "y = x.flatten(2)\ny = y @ y.mT @ y\nreturn self.head(y.flatten(1))", 1),
        ("self.a = nn.Linear(64, 64)", "return self.head((self.a(x.flatten(2)) + self.a(x.flatten(2))).flatten(1))", 2),
        ("self.a = nn.Linear(64, 64)", "y = x.clone()\ny[:, 0] = self.a(y[:, 0].flatten(1)).view(-1, 8, 8)\n"
                                       "return self.head(y.flatten(1))", 2),
        ("self.a = nn.Linear(64, 64)", "self.a(self.a(x.flatten(2)))\nreturn self.head(x.flatten(1))", 1),
        ("self.a = nn.Linear(8, 192); self.b = nn.Linear(8, 10)",
         "return F.linear(x.flatten(1), self.b.weight @ self.a.weight.T)", 1),
        ("self.a = nn.MultiheadAttention(64, 2, batch_first=True)",
         "y = x.flatten(2)\nreturn self.head(self.a(y, y, y)[0].flatten(1))", 3),
        ("self.a = nn.LSTM(64, 8, batch_first=True); self.b = nn.Linear(8, 10)",
         "return self.b(self.a(x.flatten(2))[0][:, -1])", 4),  # three steps, one after another
    ],
)  # fmt: skip
def test_depth_counts_what_a_parameter_does_to_the_image_and_nothing_else(init: str, forward: str, depth: int) -> None:
    found = build(write_program(f"{init}\nself.head = nn.Linear(192, 10)", forward))
    assert found.depth == depth, found
