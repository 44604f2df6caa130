"""The contract's two halves: what the engine calls is there and, where it is screened, nothing reaches outside."""

from __future__ import annotations

import random

import pytest

from nas_ray.candidate import Program
from nas_ray.contract import check_contract
from nas_ray.grammar import sample_document
from nas_ray.outcome import Outcome, Rejection, Stage
from nas_ray.program import parse_completion

INIT = "    def __init__(self, in_shape, out_shape, prm, device):\n        super().__init__()\n"
FORWARD = "    def forward(self, x):\n        return x\n"
NET = f"import torch\nimport torch.nn as nn\nclass Net(nn.Module):\n{INIT}{FORWARD}"


def check(code: str, screens: bool = True) -> Rejection | None:
    program = parse_completion(code)
    assert isinstance(program, Program), program
    return check_contract(program, screens)


@pytest.mark.parametrize(
    "code",
    [
        NET,
        f"import torch\nclass Net(torch.nn.Module):\n{INIT}{FORWARD}",
        f"from torch.nn import Module as M\nclass Net(M):\n{INIT}{FORWARD}",
        f"from torch.nn import *\nclass Net(Module):\n{INIT}{FORWARD}",
        f"from torch import nn\nclass Net(nn.Sequential):\n{INIT}{FORWARD}",
        f"from torch import nn\nclass Base(nn.Module):\n{INIT}\nclass Net(Base):\n{FORWARD}",
        NET.replace("device):", "device='cpu'):"),
        NET.replace("(self, x)", "(self, images: torch.Tensor, train=False, *, deep=True) -> torch.Tensor"),
        NET.replace("(self, x)", "(self, *x)"),
        NET.replace("    def forward", "    @torch.no_grad()\n    def forward"),
        NET.replace("return x", "return max(i for i in gen(x))\n    def gen(self):\n        yield 1"),
        f"class Net: pass\n{NET}",
        f"import math, random, copy, functools\nfrom collections import OrderedDict\nimport numpy as np\n{NET}",
        f"from torch.utils.checkpoint import checkpoint\nfrom torch.utils import checkpoint as c\n{NET}",
        f"from torch import Tensor, optim\nimport torch.nn.functional as F\n{NET}",
        f"def supported_hyperparameters():\n    return {{'lr'}}\n{NET}",
        NET.replace("return x", "compile = x.exp()\n        open = compile\n        return open"),
        NET.replace("return x", "return getattr(self, 'layer1')(x).numpy()"),
    ],
)
def test_program_that_follows_the_contract_passes(code: str) -> None:
    assert check(code) is None


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("def f(): pass", "there is no class Net(nn.Module) at top level, but no class"),
        ("class A: pass\nclass B: pass", "there is no class Net(nn.Module) at top level, but the classes A, B"),
        (
            NET.replace("nn.Module", "object"),
            "line 5: Net must be a subclass of torch.nn.Module, but its base is object",
        ),
        (NET.replace("(nn.Module)", ""), "line 5: Net must be a subclass of torch.nn.Module, but its base is nothing"),
        (
            NET.replace("import torch.nn as nn\n", ""),
            "line 4: Net must be a subclass of torch.nn.Module, but its base is nn.Module",
        ),
        (
            NET.replace(INIT, ""),
            "Net has no method __init__; wanted is __init__(self, in_shape, out_shape, prm, device)",
        ),
        (NET.replace(FORWARD, ""), "Net has no method forward; wanted is forward(self, x)"),
        (
            NET.replace("in_shape, out_shape, prm, device", "classes=10"),
            "line 6: found __init__(self, classes=10), wanted __init__(self, in_shape, out_shape, prm, device)",
        ),
        (
            NET.replace("prm, device)", "device, prm)"),
            "line 6: found __init__(self, in_shape, out_shape, device, prm), "
            "wanted __init__(self, in_shape, out_shape, prm, device)",
        ),
        (
            NET.replace("prm, device)", "prm, device, *, depth)"),
            "line 6: found __init__(self, in_shape, out_shape, prm, device, *, depth), "
            "wanted __init__(self, in_shape, out_shape, prm, device)",
        ),
        (NET.replace("(self, x)", "(self)"), "line 8: found forward(self), wanted forward(self, x)"),
        (NET.replace("(self, x)", "(self, x, y)"), "line 8: found forward(self, x, y), wanted forward(self, x)"),
        (NET.replace("(self, x)", "(self, x, *, y)"), "line 8: found forward(self, x, *, y), wanted forward(self, x)"),
        (
            NET.replace("    def forward", "    async def forward"),
            "line 8: forward is async, but must be a plain method forward(self, x)",
        ),
        (
            NET.replace("return x", "yield x"),
            "line 8: forward yields, which makes it a generator; wanted is a method that returns",
        ),
        (
            NET.replace("    def forward", "    @staticmethod\n    def forward"),
            "line 9: forward is a staticmethod, but must be a plain method forward(self, x)",
        ),
        (f"{NET}\nclass Net: pass\n", "line 12: Net must be a subclass of torch.nn.Module, but its base is nothing"),
    ],
)
def test_contract_error_says_what_was_found_and_what_is_wanted(code: str, detail: str) -> None:
    assert check(code) == Rejection(Outcome.CONTRACT_ERROR, Stage.CONTRACT, detail)


@pytest.mark.parametrize(
    "act",
    [
        "import os",
        "import os.path as p",
        "from os import path",
        "import subprocess",
        "import torchvision",
        "from . import a",
        "from torch import hub",
        "import torch.utils.data",
        "from torch.utils.cpp_extension import load",
        "import torch.hub",
        "from torch import load",
        "from random import _os",
        "import multiprocessing, math",
        "import torch.multiprocessing",
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_import_from_outside_the_list_is_forbidden(act: str, inside: bool) -> None:
    code = NET.replace("return x", f"{act}\n        return x") if inside else f"{act}\n{NET}"
    rejection = check(code)
    assert rejection is not None
    assert (rejection.outcome, rejection.stage) == (Outcome.FORBIDDEN, Stage.CONTRACT)
    assert rejection.detail.startswith(f"line {9 if inside else 1}: import of ")


@pytest.mark.parametrize(
    ("act", "named"),
    [
        ("open('/etc/passwd')", "open"),
        ("exec('1')", "exec"),
        ("eval('1')", "eval"),
        ("__import__('os')", "__import__"),
        ("input()", "input"),
        ("f = globals", "globals"),
        ("compile('1', '', 'exec')", "compile"),
        ("breakpoint()", "breakpoint"),
        ("torch.load('w.pt')", "torch.load"),
        ("torch.save(x, 'w.pt')", "torch.save"),
        ("torch.hub.load('a', 'b')", "torch.hub"),
        ("torch.ops.load_library('a.so')", "torch.ops.load_library"),
        ("torch.os.system('ls')", "the attribute os"),
        ("np.memmap('a')", "numpy.memmap"),
        ("nn.Module.__init__.__globals__", "the attribute __globals__"),
        ("().__class__.__base__.__subclasses__()", "the attribute __"),
        ("getattr(x, '__globals__')", "the name '__globals__'"),
        ("torch.compile(self)", "torch.compile"),
        ("x.numpy().tofile('a')", "the attribute tofile"),
    ],
)
def test_reach_to_the_outside_is_forbidden(act: str, named: str) -> None:
    rejection = check("import numpy as np\n" + NET.replace("return x", f"{act}\n        return x"))
    assert rejection is not None
    assert rejection.outcome is Outcome.FORBIDDEN
    assert rejection.detail.startswith(f"line 10: use of {named}")


@pytest.mark.parametrize("act", ["import os", "open('a')", "torch.load('w.pt')"])
def test_without_the_screen_a_program_is_not_refused_for_its_looks(act: str) -> None:
    code = NET.replace("return x", f"{act}\n        return x")
    assert check(code) is not None
    assert check(code, screens=False) is None


def test_first_forbidden_line_is_named() -> None:
    rejection = check(NET.replace("return x", "open('a')\n        eval('b')") + "\nimport os\n")
    assert rejection is not None
    assert rejection.detail == "line 9: use of open"


def test_programs_of_the_grammar_follow_the_contract() -> None:
    rng = random.Random(0)
    for _ in range(40):
        parsed = parse_completion(sample_document(rng)[1])
        if isinstance(parsed, Program):
            assert check_contract(parsed, screens=True) is None
