"""What does not matter does not show in the normalised text, and what matters does."""

from __future__ import annotations

import io
import keyword
import random
import textwrap
import tokenize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_ray.grammar import sample_program
from nas_ray.normalisation import normalise

# Names in the grammar's programs that are theirs to choose.
OWN_STEMS = (
    "conv",
    "c",
    "bn",
    "norm",
    "pool",
    "drop",
    "skip",
    "gate",
    "block",
    "features",
    "fc",
    "head",
    "classifier",
    "act",
)
OWN_NAMES = {
    "in_shape",
    "out_shape",
    "prm",
    "device",
    "x",
    "y",
    "layers",
    "channels",
    "width",
    "c_in",
    "c_out",
    "Block",
    "self",
}


def text(code: str) -> str:
    return normalise(textwrap.dedent(code))


def own_names(code: str) -> set[str]:
    names = {
        token.string for token in tokenize.generate_tokens(io.StringIO(code).readline) if token.type == tokenize.NAME
    }
    numbered = {name for name in names if name.rstrip("0123456789") in OWN_STEMS}
    return (numbered | (OWN_NAMES & names)) - keywords_of_calls(code)


def keywords_of_calls(code: str) -> set[str]:
    return {"device"} if "device=" in code else set()


def rename(code: str, names: dict[str, str]) -> str:
    """Replace whole names, with ragged layout and a comment on every line."""
    tokens = [
        (token.type, names.get(token.string, token.string))
        for token in tokenize.generate_tokens(io.StringIO(code).readline)
        if token.type not in (tokenize.COMMENT, tokenize.NL)
    ]
    return tokenize.untokenize(tokens)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_renaming_keeps_the_text(seed: int, choice: random.Random) -> None:
    code = sample_program(random.Random(seed), (1, 8, 8), 10, 500_000, mistakes=0.0)
    names = sorted(own_names(code))
    fresh = [f"{choice.choice('abcdefg')}{choice.choice('xyz')}_{number}" for number in range(len(names))]
    choice.shuffle(fresh)
    assert not any(keyword.iskeyword(name) for name in fresh)
    assert normalise(rename(code, dict(zip(names, fresh, strict=True)))) == normalise(code)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_import_style_keeps_the_text(seed: int) -> None:
    code = sample_program(random.Random(seed), (1, 8, 8), 10, 500_000, mistakes=0.0)
    body = code.split("\n\n\n", 1)[1]
    spelled_out = body.replace("nn.", "torch.nn.").replace("F.", "torch.nn.functional.")
    aliased = body.replace("nn.", "layers_of.").replace("F.", "functional.")
    assert normalise(f"import torch\n{spelled_out}") == normalise(code)
    assert normalise(
        f"import torch, math\nfrom torch import nn as layers_of\nfrom torch.nn import functional\n{aliased}"
    ) == normalise(code)


SAME = {
    "comments and docstrings": ("def f(a):\n    '''Doc.'''\n    # why\n    return a", "def f(a): return a"),
    "annotations": (
        "def f(a: int) -> 'T':\n    b: int = a\n    c: str\n    return b",
        "def f(a):\n    b = a\n    return b",
    ),
    "quotes and numbers": ("x = 'a' + f(0.10, 1_000)", 'x = ("a" + f(1e-1, 1000))'),
    "order of keywords": ("f(1, b=2, a=3)", "f(1, a=3, b=2)"),
    "imports of one thing": ("from torch.nn import ReLU\nc = ReLU()", "import torch\nc = torch.nn.ReLU()"),
    "star imports": ("from torch.nn import *\nc = Conv2d(1, 2)", "from torch import nn\nc = nn.Conv2d(1, 2)"),
    "imports inside functions": (
        "def f():\n    import math as m\n    return m.pi",
        "import math\ndef f():\n    return math.pi",
    ),
    "unused imports": ("import math\nx = 1", "x = 1"),
    "super with arguments": (
        "class A(B):\n    def __init__(self):\n        super(A, self).__init__()",
        "class A(B):\n    def __init__(me):\n        super().__init__()",
    ),
    "keywords of own functions": ("def f(a, b): pass\nf(a=1, b=2)", "def g(c, d): pass\ng(c=1, d=2)"),
    "keywords of own classes": (
        "class A:\n    def __init__(self, width): pass\nA(width=3)",
        "class C:\n    def __init__(self, size): pass\nC(size=3)",
    ),
    "own methods": (
        "class A:\n    def f(self): return self.g()\n    def g(self): return 1",
        "class A:\n    def p(self): return self.q()\n    def q(self): return 1",
    ),
    "buffers": (
        "class A:\n    def f(self):\n        self.register_buffer('mask', 1)\n        return self.mask",
        "class A:\n    def f(self):\n        self.register_buffer('keep', 1)\n        return self.keep",
    ),
    "class constants": (
        "class A:\n    factor = 2\n    def f(self): return self.factor",
        "class A:\n    scale = 2\n    def f(self): return self.scale",
    ),
    "comprehensions and lambdas": (
        "def f(xs): return [i for i in xs if i] + [g(lambda a: a) for i, g in xs]",
        "def f(ys): return [a for a in ys if a] + [c(lambda d: d) for b, c in ys]",
    ),
    "walrus, except, with, match": (
        "def f(a):\n    if (b := a): pass\n    try: pass\n    except E as e: e\n"
        "    with a as c: c\n    match a:\n        case [d, *r]: d, r",
        "def f(z):\n    if (y := z): pass\n    try: pass\n    except E as x: x\n"
        "    with z as w: w\n    match z:\n        case [v, *u]: v, u",
    ),
    "global names": (
        "N = 1\ndef f():\n    global N\n    N = 2\n    return N",
        "M = 1\ndef f():\n    global M\n    M = 2\n    return M",
    ),
    "pass beside statements": ("def f():\n    pass\n    ...\n    return 1", "def f():\n    return 1"),
}  # fmt: skip

DIFFERENT = {
    "numbers": ("nn.Conv2d(1, 2)", "nn.Conv2d(1, 3)"),
    "order of arguments": ("def f(a, b): return a - b", "def f(a, b): return b - a"),
    "imported or not": ("import torch.nn as nn\nx = nn.Conv2d", "x = nn.Conv2d"),
    "which import": ("from torch import sin as f\nx = f(1)", "from torch import cos as f\nx = f(1)"),
    "blocks": ("if a:\n    b\nc", "if a:\n    b\n    c"),
    "module or function": ("import torch.nn as nn\nx = nn.ReLU()", "import torch\nx = torch.relu"),
    "names that getattr reaches": (
        "class A:\n    def f(self):\n        self.a, self.b = 1, 2\n        return getattr(self, 'a')",
        "class A:\n    def f(self):\n        self.b, self.a = 1, 2\n        return getattr(self, 'a')",
    ),
    "names that others reach": (
        "class A:\n    def __init__(self):\n        self.a, self.b = 1, 2\nx = A().a",
        "class A:\n    def __init__(self):\n        self.b, self.a = 1, 2\nx = A().a",
    ),
    "names that a foreign base reaches": (
        "from torch.nn import Conv2d\nclass A(Conv2d):\n    def f(self): self.stride, self.padding = 1, 2",
        "from torch.nn import Conv2d\nclass A(Conv2d):\n    def f(self): self.padding, self.stride = 1, 2",
    ),
    "names that a foreign base reaches through an own one": (
        "from torch.nn import Fold\nclass B(Fold): pass\nclass A(B):\n    def f(self): self.stride, self.fold = 1, 2",
        "from torch.nn import Fold\nclass B(Fold): pass\nclass A(B):\n    def f(self): self.fold, self.stride = 1, 2",
    ),
    "keywords": ("def f(a, b): return a\nf(a=1, b=2)", "def f(b, a): return b\nf(a=1, b=2)"),
    "keywords through partial": (
        "from functools import partial\ndef f(a, b): return a\npartial(f, a=1)",
        "from functools import partial\ndef f(b, a): return b\npartial(f, a=1)",
    ),
    "keywords from a dictionary": ("def f(a, b): return a\nf(**d)", "def f(b, a): return b\nf(**d)"),
    "keywords of methods": (
        "class A:\n    def f(self, a, b): return a\n    def g(self): return self.f(a=1, b=2)",
        "class A:\n    def f(self, b, a): return b\n    def g(self): return self.f(a=1, b=2)",
    ),
    "methods that torch calls": ("class A:\n    def forward(self): pass", "class A:\n    def extra_repr(self): pass"),
    "shadowed variables": ("def f(a): return [b for b in a]", "def f(a): return [a for b in a]"),
    "missing attributes": ("class A:\n    def f(self): return self.a", "class A:\n    def f(self): return self.b"),
    "data class fields": (
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    a: int = 1",
        "class A:\n    a: int = 1",
    ),
    "the network": ("class Net: pass\nclass B: pass", "class B: pass\nclass Net: pass"),
}


@pytest.mark.parametrize("name", SAME)
def test_text_does_not_show(name: str) -> None:
    one, other = SAME[name]
    assert text(one) == text(other)


@pytest.mark.parametrize("name", DIFFERENT)
def test_text_shows(name: str) -> None:
    one, other = DIFFERENT[name]
    assert text(one) != text(other)


def test_normalised_text_is_tokens_with_external_names() -> None:
    code = """
    import torch.nn as nn
    import torch.nn.functional as F

    class Net(nn.Module):
        def __init__(self, in_shape, out_shape, prm, device):
            super().__init__()
            self.fc = nn.Linear(8, out_features=10)

        def forward(self, x):
            return F.relu(self.fc(x))
    """
    assert text(code) == (
        "class Net ( nn . Module ) : ; {{ def __init__ ( v_0 , v_1 , v_2 , v_3 , v_4 ) : ; {{ "
        "super ( ) . __init__ ( ) ; v_0 . a_0 = nn . Linear ( 8 , out_features = 10 ) ; }}"
        " def forward ( v_0 , v_1 ) : ; {{ return F . relu ( v_0 . a_0 ( v_1 ) ) ; }} }}"
    )


def test_a_change_in_one_method_leaves_the_names_of_another() -> None:
    forward = "    def forward(self, x):\n        y = self.a(x)\n        return y\n"
    one = normalise(f"class Net:\n    def __init__(self, p):\n        self.a = p\n{forward}")
    other = normalise(f"class Net:\n    def __init__(self, p):\n        q = r = p\n        self.a = q + r\n{forward}")
    assert one.split("forward")[1] == other.split("forward")[1]
