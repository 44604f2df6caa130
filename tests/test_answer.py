"""What an answer stands for: a whole program, an edit, or neither."""

from __future__ import annotations

from nas_ray.answer import Answer, read_answer
from nas_ray.candidate import GenerationRequest
from nas_ray.config import DeltaConfig
from nas_ray.deltas import Delta, apply_delta
from nas_ray.outcome import Outcome, Rejection

PARENT = (
    "import torch.nn as nn\n\n\nclass Net(nn.Module):\n    def __init__(self, in_shape, out_shape, prm, device):\n"
    "        super().__init__()\n        self.fc = nn.Linear(64, out_shape[0])\n\n    def forward(self, x):\n"
    "        return self.fc(x.flatten(1))\n"
)
LINE = "        return self.fc(x.flatten(1))\n"
EDIT = GenerationRequest(1, 2, "prompt", 3, ("aa",), "delta", PARENT, "accuracy")
STRICT, LENIENT = DeltaConfig(), DeltaConfig(fallback=True)


def edit(search: str, replace: str) -> str:
    return f"<<<<<<< SEARCH\n{search}=======\n{replace}>>>>>>> REPLACE\n"


def outcome(text: str, config: DeltaConfig = STRICT) -> Outcome:
    rejection = read_answer(EDIT, text, config)
    assert isinstance(rejection, Rejection)
    return rejection.outcome


def test_an_edit_stands_for_the_child_of_its_parent() -> None:
    text = edit(LINE, LINE.replace("x.flatten(1)", "x.relu().flatten(1)"))
    answer = read_answer(EDIT, f"Like this:\n{text}", STRICT)
    assert isinstance(answer, Answer)
    assert (answer.mode, answer.patch) == ("delta", text)
    assert answer.program.code == PARENT.replace("x.flatten(1)", "x.relu().flatten(1)")


def test_a_request_for_a_whole_program_takes_no_edit() -> None:
    request = GenerationRequest(0, 0, "prompt", 0)
    whole = read_answer(request, PARENT, STRICT)
    assert isinstance(whole, Answer)
    assert (whole.mode, whole.program.code, whole.patch) == ("full", PARENT, "")
    refused = read_answer(request, edit(LINE, LINE), STRICT)
    assert isinstance(refused, Rejection)
    assert refused.outcome is Outcome.NO_CODE


def test_a_whole_program_in_place_of_an_edit_counts_only_where_that_is_configured() -> None:
    assert outcome(PARENT) is Outcome.PATCH_FAILED
    answer = read_answer(EDIT, PARENT, LENIENT)
    assert isinstance(answer, Answer)
    assert (answer.mode, answer.patch) == ("fallback", "")


def test_neither_an_edit_nor_a_program_is_a_failed_patch_in_any_case() -> None:
    assert outcome("I would rather not.") is outcome("I would rather not.", LENIENT) is Outcome.PATCH_FAILED


def test_an_edit_that_changes_only_names_and_comments_is_no_change() -> None:
    assert outcome(edit(LINE, LINE)) is Outcome.NO_CHANGE
    assert outcome(edit(LINE, LINE.rstrip() + "  # better\n")) is Outcome.NO_CHANGE


def test_a_child_that_does_not_parse_is_a_syntax_error() -> None:
    assert outcome(edit(LINE, LINE.replace("))", ")"))) is Outcome.SYNTAX_ERROR


def test_what_is_left_out_of_a_child_is_left_out_of_its_patch_too() -> None:
    replaced = LINE.replace("x.flatten(1)", "x.relu().flatten(1)")
    answer = read_answer(EDIT, edit(LINE, f"{replaced}\n\nprint(Net(1, 2, 3, 4))\n"), STRICT)
    assert isinstance(answer, Answer)
    assert answer.program.dropped
    child = apply_delta(answer.patch, PARENT, STRICT.format)
    assert isinstance(child, Delta)
    assert child.code == answer.program.code
    assert "print" not in answer.patch
