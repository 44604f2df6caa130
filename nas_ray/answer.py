"""What a completion says in reply to its request: a whole program, or an edit that makes one of the parent.

In: a request, the text that answered it, and how edits are taken. Out: an `Answer` with the program, or a `Rejection`
(`no_code`, `syntax_error`, `patch_failed`, `no_change`). Never an exception, whatever the text holds.
"""

from __future__ import annotations

from dataclasses import dataclass

from nas_ray.candidate import GenerationRequest, Program
from nas_ray.config import DeltaConfig
from nas_ray.deltas import apply_delta, write_delta
from nas_ray.outcome import Outcome, Rejection, Stage
from nas_ray.program import parse_completion


@dataclass(frozen=True, slots=True)
class Answer:
    """A program, and how it was written."""

    program: Program
    mode: str  # "full" | "delta" | "fallback": a whole program in place of the edit that was asked for
    patch: str = ""  # of an edit: blocks that make the program of its parent


def read_answer(request: GenerationRequest, text: str, config: DeltaConfig) -> Answer | Rejection:
    """The program that `text` stands for. A child of an edit is parsed as strictly as a whole program."""
    if request.mode == "full":
        program = parse_completion(text)
        return program if isinstance(program, Rejection) else Answer(program, "full")
    delta = apply_delta(text, request.parent_code, config.format)
    if isinstance(delta, Rejection):
        whole = parse_completion(text) if config.fallback else delta
        return delta if isinstance(whole, Rejection) else Answer(whole, "fallback")
    child, parent = parse_completion(delta.code), parse_completion(request.parent_code)
    if isinstance(child, Rejection):
        return child
    if isinstance(parent, Program) and child.id == parent.id:
        detail = f"the edit leaves {parent.id} as it is, but for names, comments and spaces"
        return Rejection(Outcome.NO_CHANGE, Stage.PARSE, detail)
    # What is left out of a child (a script, say) is no part of the edit that is kept and taught.
    patch = delta.patch if child.code == delta.code else write_delta(request.parent_code, child.code, config.format)
    return Answer(child, "delta", patch)
