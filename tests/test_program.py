"""Completions of every kind: what is kept, what is recorded, and that no text makes the parser fall over."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_ray.candidate import Program
from nas_ray.grammar import sample_document
from nas_ray.outcome import Outcome, Rejection, Stage
from nas_ray.program import MAX_CODE_BYTES, MAX_DROPPED, MAX_LINE, parse_completion, read_program

NET = """\
class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        self.fc = nn.Linear(in_shape[1], out_shape[0])  # the only layer

    def forward(self, x):
        return self.fc(x.mean((2, 3)))
"""
IMPORTS = "import torch\nimport torch.nn as nn\n"
CODE = f"{IMPORTS}\n\n{NET}"


def read(text: str) -> Program:
    parsed = parse_completion(text)
    assert isinstance(parsed, Program), parsed
    return parsed


def refuse(text: str) -> Rejection:
    parsed = parse_completion(text)
    assert isinstance(parsed, Rejection), parsed
    assert parsed.stage is Stage.PARSE
    return parsed


def test_plain_code_is_kept_as_written() -> None:
    program = read(CODE)
    assert program.code == CODE
    assert program.dropped == ()


def test_training_script_is_dropped_line_by_line_and_recorded() -> None:
    program = read(f"{CODE}\nmodel = Net((1, 1, 8, 8), (10,), {{}}, 'cpu')\nfor epoch in range(3):\n    print(epoch)\n")
    assert program.code == CODE
    assert program.dropped == (
        "line 13: model = Net((1, 1, 8, 8), (10,), {}, 'cpu')",
        "lines 14-15: for epoch in range(3):",
    )


def test_imports_go_with_the_script_that_alone_uses_them() -> None:
    script = "data = torchvision.datasets.MNIST('.')\nif __name__ == '__main__':\n    train(data)\n"
    program = read(f"import torchvision\nimport os\n{CODE}\n{script}")
    assert "torchvision" not in program.code
    assert program.code.startswith("import os\n")  # used by nobody, so it stays as written
    assert program.dropped[0] == "line 1: import torchvision"


def test_assignments_that_call_nothing_are_kept_where_a_definition_reads_them() -> None:
    constants = "SIZES = [16, 32]\nNorm = nn.BatchNorm2d\nSCALE: float = len(SIZES) / 2\nEPOCHS = 3\nBASE = SIZES\n"
    net = NET.replace("(x.mean", "(BASE[0] * Norm * x.mean")
    program = read(f"{IMPORTS}{constants}\n{net}")
    kept = program.code.split("\n\n\n")[0].splitlines()
    assert kept == [*IMPORTS.splitlines(), "SIZES = [16, 32]", "Norm = nn.BatchNorm2d", "BASE = SIZES"]
    assert program.dropped == ("line 5: SCALE: float = len(SIZES) / 2", "line 6: EPOCHS = 3")


@pytest.mark.parametrize(
    "text",
    [
        f"```python\n{CODE}```",
        f"Here is the network:\n\n```python\n{CODE}```\nIt has one layer.",
        f"~~~\n{CODE}~~~",
        f"```\npip install torch\n```\nand\n```python\n{CODE}```\nTrain it:\n```python\nnet = Net()\nnet.fit()\n```",
        f"1. The code:\n   ```py\n{''.join(f'   {line}' for line in CODE.splitlines(keepends=True))}   ```",
        f"```python\n{CODE}",
        f"Sure, here you go!\n\n{CODE}\nThis network has few parameters, but it's fast.\n",
        f"<think>I could write\n```python\nclass Net:\n    pass\n```\nbut no.</think>\n```python\n{CODE}```",
        CODE.replace("\n", "\r\n"),
    ],
)
def test_code_is_found_in(text: str) -> None:
    assert read(text).code == CODE


def test_without_a_net_the_longest_block_of_code_is_taken() -> None:
    program = read("```python\nimport os\n```\n```python\nclass Other:\n    pass\n```\n")
    assert program.code == "class Other:\n    pass\n"


def test_prose_and_other_blocks_are_recorded_with_their_lines() -> None:
    program = read(f"Hello.\n\n```python\n{CODE}```\nUse it:\n```sh\npython net.py\n```\n")
    assert program.dropped == ("line 1: Hello.", "line 16: Use it:", "line 18: python net.py")


def test_decorators_stay_with_their_function() -> None:
    text = f"{IMPORTS}\n@torch.no_grad()\ndef helper(x):\n    return x\n\n\n{NET}\nand that is it.\n"
    assert "@torch.no_grad()\ndef helper(x):" in read(text).code


@pytest.mark.parametrize(
    "text", ["", "   \n", "I cannot help with that.", "print('hello')", "import torch", "```\nx\n```", "("]
)
def test_no_class_and_no_function_is_no_code(text: str) -> None:
    assert refuse(text).outcome is Outcome.NO_CODE


@pytest.mark.parametrize("cut", range(len(IMPORTS) + 30, len(CODE) - 40, 7))
def test_truncated_class_is_never_repaired(cut: int) -> None:
    """Where the token limit cuts: a text that does not parse is refused; one that does is kept to the last letter."""
    parsed = parse_completion(CODE[:cut])
    if isinstance(parsed, Program):
        assert parsed.code.split() == CODE[:cut].split("#")[0].split() or parsed.code.split() == CODE[:cut].split()
    else:
        assert parsed.outcome is Outcome.SYNTAX_ERROR


@pytest.mark.parametrize(
    ("script", "lines"),
    [
        ("def train(model):\n    for x in loader:\n        loss = f(", "lines 13-15"),
        ("for x in loader:\n    print(", "lines 13-14"),
        ("optimizer = nn.", "line 13"),
    ],
)
def test_script_cut_off_by_the_token_limit_is_dropped(script: str, lines: str) -> None:
    program = read(f"{CODE}\n{script}")
    assert program.code == CODE
    assert program.dropped == (f"{lines}: {script.splitlines()[0]}",)


@pytest.mark.parametrize(
    "text",
    [
        CODE.replace("):\n        super", ")\n        super"),
        CODE.replace("nn.Linear(", "nn.Linear"),
        f"def broken(:\n    pass\n\n{CODE}",
        f"{CODE}\n\nclass Trainer:\n    def fit(self",
        CODE.replace("        self.fc = ", "self.fc = (\n"),
        f"{CODE}\nfrom __future__ import annotations\n",
        f"{NET}        return outside(\n",
        "class Net:\n    return 3\n",
        "class Net:\n    x = '\ud800'\n",
        "class Net:\n    x = '\x00'\n",
        f"class Net:\n    x = 0x{'f' * 9000}\n",
        f"class Net:\n    x = {'-' * 60_000}1\n",
        f"class Net:\n    x = {'(' * 5_000}\n",
        f"class Net:\n    x = a{'.b' * 30_000}\n",
        f"class Net:\n    x = 1{'+1' * 30_000}\n",
        f"class Net:\n    x = {'lambda: ' * 5_000}1\n",
        f"class Net:\n    x = '{'x' * MAX_CODE_BYTES}'\n",
        "class Net: pass\n" + "# comment\n" * 100_000,
    ],
)
def test_unreadable_code_is_a_syntax_error(text: str) -> None:
    rejection = refuse(text)
    assert rejection.outcome is Outcome.SYNTAX_ERROR
    assert rejection.error_type
    assert rejection.detail
    assert len(rejection.detail) <= MAX_LINE
    rejection.detail.encode()


def test_syntax_error_names_the_line_of_the_completion() -> None:
    assert refuse(f"Here:\n\n{CODE.replace('nn.Linear(', 'nn.Linear')}").detail.startswith("line 10: unmatched ')'")


def test_dropped_lines_are_bounded_and_printable() -> None:
    program = read(CODE + "print('\x1b[31m' + 'x' * 3, " + "'y' * 200, " * 50 + ")\n" * 1 + "print(1)\n" * 500)
    assert len(program.dropped) == MAX_DROPPED + 1
    assert program.dropped[-1] == f"and {501 - MAX_DROPPED} more"
    assert all(len(line) <= MAX_LINE and line.isprintable() for line in program.dropped)


def test_programs_of_the_grammar_parse_to_themselves() -> None:
    rng = random.Random(0)
    for _ in range(40):
        code = sample_document(rng)[1]
        parsed = parse_completion(code)
        if isinstance(parsed, Program):
            assert parsed.code.split() == code.split()
            assert parsed.dropped == ()
            assert read(parsed.code) == parsed
        else:
            assert parsed.outcome is Outcome.SYNTAX_ERROR


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=300), st.integers(0, len(CODE)), st.integers(0, len(CODE)))
def test_any_text_gives_a_program_or_a_reason(text: str, cut: int, end: int) -> None:
    for completion in (text, CODE[:cut] + text + CODE[end:], f"{text}\n{CODE}\n{text}"):
        parsed = parse_completion(completion)
        if isinstance(parsed, Program):
            assert len(parsed.id) == 16
            again = read(parsed.code)
            assert (again.id, again.code) == (parsed.id, parsed.code)
        else:
            assert parsed.outcome in (Outcome.NO_CODE, Outcome.SYNTAX_ERROR)
            assert parsed.detail


def test_a_file_is_a_program_as_a_whole() -> None:
    code = f"{IMPORTS}print('loading')\n{NET}\n# the end\nnet = Net((1, 1, 8, 8), (10,), {{}}, 'cpu')\n"
    program = read_program(code.replace("\n", "\r\n"))
    assert isinstance(program, Program)
    assert (program.code, program.dropped) == (code, ())


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        (f"Here it is:\n```python\n{NET}```\n", Outcome.SYNTAX_ERROR),
        (f"{NET}\ndef f(:", Outcome.SYNTAX_ERROR),
        (f"{NET}\nreturn 3\n", Outcome.SYNTAX_ERROR),
        ("#" * (MAX_CODE_BYTES + 1), Outcome.SYNTAX_ERROR),
        (IMPORTS, Outcome.NO_CODE),
    ],
)
def test_nothing_of_a_file_is_repaired(text: str, outcome: Outcome) -> None:
    found = read_program(text)
    assert isinstance(found, Rejection)
    assert (found.outcome, found.stage) == (outcome, Stage.PARSE)
