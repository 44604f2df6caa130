"""Where the names of a program come from: its imports, and what a dotted expression means through them.

In: AST nodes. Out: full dotted paths, so that `nn.Conv2d`, `torch.nn.Conv2d` and `from torch.nn import Conv2d` are one.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator

STAR = "*"


def imported(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    """(name that the import binds, full dotted path); a star import gives (`STAR`, module)."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield (alias.asname, alias.name) if alias.asname else (alias.name.split(".")[0],) * 2
    else:
        module = "." * node.level + (node.module or "")
        for alias in node.names:
            if alias.name == STAR:
                yield STAR, module
            else:
                yield alias.asname or alias.name, f"{module}.{alias.name}"


def imported_names(statements: Iterable[ast.stmt]) -> dict[str, str]:
    """All names that these statements import, with their paths; nested blocks are not looked into."""
    return {
        name: path
        for statement in statements
        if isinstance(statement, ast.Import | ast.ImportFrom)
        for name, path in imported(statement)
    }


def dotted_path(node: ast.expr, lookup: Callable[[str], str | None]) -> str | None:
    """Full path of a name or attribute chain whose root `lookup` knows as an import; None for any other expression."""
    attributes: list[str] = []
    while isinstance(node, ast.Attribute):
        attributes.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    root = lookup(node.id)
    return None if root is None else ".".join([root, *reversed(attributes)])
