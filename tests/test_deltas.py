"""Edits of programs: written, read back and applied strictly, in both formats."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_ray import grammar
from nas_ray.build import build_program
from nas_ray.candidate import Build
from nas_ray.config import BudgetConfig, ProtocolConfig
from nas_ray.deltas import WANTED, Delta, apply_delta, write_delta
from nas_ray.grammar.edits import sample_edit
from nas_ray.outcome import Outcome, Rejection
from nas_ray.training import hyperparameters

FORMATS = ("search_replace", "unified_diff")
DIGITS = ((1, 8, 8), 10, 500_000)
PARENT = "a = 1\nb = 2\n\nfor i in range(3):\n    a = 1\n    print(i)\n"
LINES = st.lists(st.sampled_from(["x = 1", "    y = 2", "", "    return x", "@@", "-1", "+1", "```"]), max_size=12)


def blocks(*pairs: tuple[str, str]) -> str:
    return "".join(f"<<<<<<< SEARCH\n{search}=======\n{replace}>>>>>>> REPLACE\n" for search, replace in pairs)


def refusal(answer: str, form: str = "search_replace", parent: str = PARENT) -> str:
    rejection = apply_delta(answer, parent, form)
    assert isinstance(rejection, Rejection)
    assert rejection.outcome is Outcome.PATCH_FAILED
    return rejection.detail


@pytest.mark.parametrize("form", FORMATS)
@given(seed=st.integers(0, 10_000))
def test_an_edit_makes_exactly_the_child_it_was_written_for(form: str, seed: int) -> None:
    edited = sample_edit(random.Random(seed), *DIGITS, mistakes=0.3)
    answer = write_delta(edited.parent, edited.child, form)
    delta = apply_delta(answer, edited.parent, form)
    assert delta == Delta(edited.child, answer)


@given(before=LINES, after=LINES, form=st.sampled_from(FORMATS))
def test_any_two_texts_differ_by_an_edit_that_applies(before: list[str], after: list[str], form: str) -> None:
    parent, child = ("\n".join(["head", *lines, "tail"]) + "\n" for lines in (before, after))
    answer = write_delta(parent, child, form)
    if parent == child:
        assert answer == ""
    else:
        delta = apply_delta(answer, parent, form)
        assert isinstance(delta, Delta)
        assert delta.code == child


def test_an_empty_program_has_no_edit() -> None:
    with pytest.raises(ValueError, match="cannot be edited"):
        write_delta("\n", "class Net: pass\n", "search_replace")


@given(st.text(), st.sampled_from(FORMATS))
def test_no_text_raises(text: str, form: str) -> None:
    assert isinstance(apply_delta(text, PARENT, form), Delta | Rejection)


def test_prose_and_fences_around_an_edit_do_not_count() -> None:
    edit = blocks(("b = 2\n", "b = 3\n"))
    delta = apply_delta(f"Sure, wider:\n```python\n{edit}```\nDone.", PARENT, "search_replace")
    assert delta == Delta(PARENT.replace("b = 2", "b = 3"), edit)
    diff = "Here:\n```diff\n--- a/net.py\n+++ b/net.py\n@@ -2,1 +2,1 @@\n-b = 2\n+b = 3\n```\nThat is all."
    assert apply_delta(diff, PARENT, "unified_diff") == Delta(PARENT.replace("b = 2", "b = 3"), "@@\n-b = 2\n+b = 3\n")


def test_every_block_refers_to_the_parent_as_it_was() -> None:
    swapped = apply_delta(
        blocks(("b = 2\n", "    print(i)\n"), ("    print(i)\n", "b = 2\n")), PARENT, "search_replace"
    )
    assert isinstance(swapped, Delta)
    assert swapped.code == "a = 1\n    print(i)\n\nfor i in range(3):\n    a = 1\nb = 2\n"


def test_lines_can_be_taken_out_and_put_in() -> None:
    out = apply_delta(blocks(("b = 2\n", "")), PARENT, "search_replace")
    assert isinstance(out, Delta)
    assert out.code == PARENT.replace("b = 2\n", "")
    added = apply_delta("@@\n b = 2\n+c = 3\n", PARENT, "unified_diff")
    assert isinstance(added, Delta)
    assert added.code == PARENT.replace("b = 2\n", "b = 2\nc = 3\n")


def test_white_space_at_the_end_of_a_line_does_not_count_and_indentation_does() -> None:
    assert isinstance(apply_delta(blocks(("b = 2  \n", "b = 3\n")), PARENT, "search_replace"), Delta)
    assert "does not stand in the program: 'b = 2'" in refusal(blocks(("  b = 2\n", "b = 3\n")))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("class Net: pass", "no <<<<<<< SEARCH block in 15 characters"),
        (blocks(("c = 3\n", "")), "block 1 of 1 searches for what does not stand in the program: 'c = 3'"),
        (blocks(("b = 2\n", "b = 3\n"), ("c = 3\n", "")), "block 2 of 2"),
        (blocks(("", "c = 3\n")), "searches for nothing"),
        (blocks(("b = 2\n\n", ""), ("b = 2\n", "b = 3\n")), "two blocks change the same line"),
        ("<<<<<<< SEARCH\nb = 2\n=======\nb = 3\n", ">>>>>>> REPLACE is missing"),
        ("<<<<<<< SEARCH\nb = 2\n", "======= is missing"),
        ("<<<<<<< SEARCH\nb = 2\n<<<<<<< SEARCH\n", "begins inside another"),
    ],
)
def test_an_edit_that_does_not_fit_is_refused_with_the_reason(answer: str, reason: str) -> None:
    assert reason in refusal(answer)


def test_a_place_that_occurs_twice_is_no_place() -> None:
    parent = "x = f(x)\nx = g(x)\nx = f(x)\n"
    assert "2 times" in refusal(blocks(("x = f(x)\n", "x = h(x)\n")), parent=parent)
    assert isinstance(apply_delta(blocks(("x = f(x)\nx = g(x)\n", "x = h(x)\n")), parent, "search_replace"), Delta)


def test_a_hunk_with_a_line_of_no_kind_is_refused() -> None:
    assert "none of ' ', '+' and '-': 'b = 2'" in refusal("@@\nb = 2\n+c = 3\n", "unified_diff")


@settings(deadline=None, max_examples=40)  # two networks are built in each
@given(st.integers(0, 10_000))
def test_edits_of_the_grammar_are_small_and_what_they_say_they_are_for(seed: int) -> None:
    edited = sample_edit(random.Random(seed), *DIGITS)
    assert edited == sample_edit(random.Random(seed), *DIGITS)
    assert edited.parent != edited.child
    assert edited.wanted in WANTED
    sizes = []
    for program in (edited.parent, edited.child):
        built = build_program(program, (1, 1, 8, 8), (10,), hyperparameters(ProtocolConfig()), BudgetConfig(), 0)
        assert isinstance(built, Build)
        sizes.append(built.parameters)
    assert sizes[0] == edited.parameters
    if edited.wanted in ("smaller", "larger"):
        assert (sizes[1] < sizes[0]) == (edited.wanted == "smaller")


def test_documents_of_edits_hold_the_parent_in_the_prompt_and_the_edit_in_the_answer() -> None:
    prompt, answer = grammar.sample_edit_document(random.Random(3), mistakes=0.0)
    task, asked, parent = prompt.split("\n", 2)
    assert task.startswith("# ")
    assert asked.startswith("# edit this: accuracy ")
    assert isinstance(apply_delta(answer, parent, "search_replace"), Delta)
