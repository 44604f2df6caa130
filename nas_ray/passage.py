"""Which passage of a completion is the code.

In: a completion's text: plain code, Markdown with fenced blocks, or prose around either. Out: one `Passage` of code and
the passages around it. Nothing is parsed here; a block that was cut off by the token limit is returned as it is.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

FENCE = re.compile(r"[ \t]*(```+|~~~+)([^`]*)$")
NET = re.compile(r"^class[ \t]+Net\b", re.MULTILINE)
CODE_LINE = re.compile(r"^(import|from|class|def|async def|@)\b", re.MULTILINE)
END_OF_THOUGHT = "</think>"


@dataclass(frozen=True, slots=True)
class Passage:
    """Some whole lines of a completion."""

    text: str
    first_line: int  # in the completion, from 1
    fenced: bool = False


def split_passages(text: str) -> list[Passage]:
    """Cut a text at its fences, which are left out; an open fence runs to the end. Fenced text loses its indent."""
    passages: list[Passage] = []
    lines: list[str] = []
    start, fence = 1, ""
    for number, line in enumerate(text.split("\n"), start=1):
        match = FENCE.match(line)
        opens = bool(match) and not fence
        closes = bool(match and fence) and line.strip() == fence
        if match and (opens or closes):
            passages.append(_passage(lines, start, fenced=closes))
            lines, start, fence = [], number + 1, match[1] if opens else ""
        else:
            lines.append(line)
    passages.append(_passage(lines, start, fenced=bool(fence)))
    return [passage for passage in passages if passage.text.strip()]


def _passage(lines: list[str], first_line: int, *, fenced: bool) -> Passage:
    text = "\n".join(lines)
    return Passage(textwrap.dedent(text) if fenced else text, first_line, fenced)


def choose_passage(text: str) -> tuple[Passage, list[Passage]]:
    """The passage that holds the program, and the others in order.

    Of several fenced blocks it is the first that defines `class Net`, else the longest that looks like code. Without
    such a block it is the whole text. What a reasoning model writes before `</think>` is never the program.
    """
    head, mark, tail = text.rpartition(END_OF_THOUGHT)
    if mark:
        skipped = head.count("\n")
        chosen, others = choose_passage("\n" * skipped + tail)
        return chosen, [Passage(head, 1), *others]
    passages = split_passages(text)
    blocks = [passage for passage in passages if passage.fenced and CODE_LINE.search(passage.text)]
    if not blocks:
        return Passage(text, 1), []
    chosen = next((block for block in blocks if NET.search(block.text)), max(blocks, key=lambda block: len(block.text)))
    return chosen, [passage for passage in passages if passage is not chosen]
