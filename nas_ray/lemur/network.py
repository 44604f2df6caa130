"""A program's network without LEMUR's training code.

In: the code of a program. Out: its network alone.

A generator is asked only for the network. So programs of LEMUR are compared with candidates, shown in prompts and
taught without their training code, which would hide that two networks are the same.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass

FUNCTION = "supported_hyperparameters"
METHODS = ("train_setup", "learn")
MARK = "# ---- added by nas-ray: LEMUR's training interface, by the protocol of the run ----"

MENTION = re.compile(rf"\b({'|'.join((FUNCTION, *METHODS))})\b")

Definition = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Cut:
    """Lines of a program that are left out, from 1, both included."""

    first: int
    last: int


def network_part(code: str) -> str:
    """The program without `supported_hyperparameters`, `train_setup` and `learn`; the rest as it is written.

    What the rest of the program reads stays, and so does a method without which its class would be empty.

    Raises:
        SyntaxError, ValueError, RecursionError: as `ast.parse`.
    """
    tree = ast.parse(code)
    net = find_net(tree)
    found: list[ast.stmt] = [node for node in tree.body if isinstance(node, Definition) and node.name == FUNCTION]
    if net is not None:
        methods = [node for node in net.body if isinstance(node, Definition) and node.name in METHODS]
        found += methods if len(methods) < len(net.body) else []
    cuts = {id(node): _lines_of(node) for node in found if isinstance(node, Definition)}
    kept = _without(code, cuts.values())
    if MENTION.search(kept):  # perhaps only in a comment
        read = _names_read(tree, found)
        kept = _without(
            code, [cuts[id(node)] for node in found if isinstance(node, Definition) and node.name not in read]
        )
    return kept


def find_net(tree: ast.Module) -> ast.ClassDef | None:
    """The class that counts: the last of that name at top level."""
    found = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Net"]
    return found[-1] if found else None


def _without(code: str, cuts: Iterable[Cut]) -> str:
    """The code without those lines, and without the marks above them. Nothing shares a line with a definition."""
    gone = {number for cut in cuts for number in range(cut.first, cut.last + 1)}
    if not gone:
        return code
    lines = [line for number, line in enumerate(code.split("\n"), 1) if number not in gone and line.strip() != MARK]
    return "\n".join(lines).strip("\n") + "\n"


def _names_read(tree: ast.Module, found: list[ast.stmt]) -> set[str]:
    """Names that the program mentions outside of `found`: as names, as attributes or as strings for `getattr`."""
    names: set[str] = set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
        waiting += (child for child in ast.iter_child_nodes(node) if child not in found)
    return names


def _lines_of(node: Definition) -> Cut:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return Cut(first, node.end_lineno or node.lineno)
