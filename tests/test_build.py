"""Building names what is wrong with a program, and where."""

from __future__ import annotations

import pytest
from candidate_programs import GOOD, write_program

from nas_ray.build import build_program
from nas_ray.candidate import Build
from nas_ray.config import BudgetConfig
from nas_ray.outcome import Outcome, Rejection, Stage


def build(code: str, **budget: float) -> Build | Rejection:
    return build_program(code, (1, 1, 8, 8), (10,), {"lr": 0.01}, BudgetConfig(**budget))  # type: ignore[arg-type]


def test_good_program_is_built_on_the_meta_device() -> None:
    built = build(GOOD)
    assert isinstance(built, Build)
    assert built.device == "meta"
    assert built.parameters == 8 * 9 + 8 + 16 + 512 * 10 + 10
    assert len(built.graph) == 16


@pytest.mark.parametrize(
    ("code", "outcome", "text"),
    [
        (GOOD.replace("8 * in_shape[2]", "9 * in_shape[2]"), Outcome.SHAPE_ERROR, "line 16: mat1 and mat2 shapes"),
        (GOOD.replace("out_shape[0]", "11"), Outcome.INVALID_OUTPUT, "forward returned shape (2, 11)"),
        (
            GOOD.replace("self.conv(x)", "self.cnv(x)"),
            Outcome.BUILD_ERROR,
            "line 15: 'Net' object has no attribute 'cnv'",
        ),
        (GOOD.replace("nn.Conv2d(in", "nn.Conv9d(in"), Outcome.BUILD_ERROR, "line 10: "),
        (GOOD + "\nraise ValueError('no')", Outcome.BUILD_ERROR, "line 18: no"),
        (GOOD + "\ndef f(:", Outcome.BUILD_ERROR, "line 18: "),
        (GOOD.replace("class Net", "class Network"), Outcome.CONTRACT_ERROR, "class Net(nn.Module)"),
        ("Net = 3", Outcome.CONTRACT_ERROR, "class Net(nn.Module)"),
        (write_program("pass", "return [x]"), Outcome.INVALID_OUTPUT, "forward returned list"),
        (write_program("pass", "return torch.zeros(2, 10).long()"), Outcome.INVALID_OUTPUT, "torch.int64"),
        (write_program("pass", "return torch.zeros(2, 10)"), Outcome.BUILD_ERROR, "no trainable parameter"),
        (write_program("pass", "raise PermissionError(13, 'no', '/root')"), Outcome.FORBIDDEN, "filesystem (/root)"),
        (write_program("raise OSError(28, 'full')", "return x"), Outcome.LIMIT_EXCEEDED, "scratch: line 10: "),
    ],
)
def test_failure_is_named_and_placed(code: str, outcome: Outcome, text: str) -> None:
    found = build(code)
    assert isinstance(found, Rejection)
    assert (found.outcome, found.stage) == (outcome, Stage.BUILD)
    assert text in found.detail


@pytest.mark.parametrize(
    ("budget", "text"),
    [({"parameters": 5_000}, "5,226 parameters > 5,000"), ({"flops": 1000.0}, "FLOPs an image > 1,000")],
)
def test_a_broken_budget_is_named_with_value_and_limit(budget: dict[str, float], text: str) -> None:
    found = build(GOOD, **budget)
    assert isinstance(found, Rejection)
    assert found.outcome is Outcome.TOO_LARGE
    assert text in found.detail


def test_a_network_far_too_large_for_memory_is_refused_without_allocating_it() -> None:
    found = build(write_program("self.head = nn.Linear(1 << 20, 1 << 20)", "return self.head(x)"))
    assert isinstance(found, Rejection)
    assert found.outcome is Outcome.TOO_LARGE


def test_a_program_that_needs_numbers_is_built_on_the_cpu() -> None:
    code = GOOD.replace("return self.head", "x = x * (1.0 if x.sum().item() > 0 else 2.0)\n        return self.head")
    built = build(code)
    assert isinstance(built, Build)
    assert built.device == "cpu"


def test_lazy_modules_count_once_they_have_a_shape() -> None:
    built = build(write_program("self.head = nn.LazyLinear(10)", "return self.head(x.flatten(1))"))
    assert isinstance(built, Build)
    assert built.parameters == 650


def test_a_dummy_pass_in_the_constructor_works() -> None:
    code = write_program(
        """
        self.conv = nn.Conv2d(1, 4, 3).to(device)
        size = self.conv(torch.zeros(1, *in_shape[1:], device=device)).flatten(1).shape[1]
        self.head = nn.Linear(size, out_shape[0])
        """,
        "return self.head(self.conv(x).flatten(1))",
    )
    built = build(code)
    assert isinstance(built, Build)
    assert (built.device, built.flops) == ("meta", 2 * 36 * 4 * 9 + 2 * 144 * 10)


def test_an_error_that_cannot_be_printed_is_still_described() -> None:
    top = "class Bad(Exception):\n    def __str__(self):\n        raise ValueError('x')\n"
    found = build(write_program("raise Bad()", "return x", top))
    assert isinstance(found, Rejection)
    assert found.error_type == "Bad"
    assert "could not be read" in found.detail
