"""Which variable a name of a program means: scopes as Python has them, simplified where networks never notice.

In: AST nodes. Out: `Scope` objects that map the names bound in a function, class, comprehension or module to variables.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from nas_ray.imports import imported

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


@dataclass(slots=True, eq=False)
class Variable:
    """What a name stands for. `path` is set for imports; `text` is its normalised name, once it has one."""

    text: str | None = None
    path: str | None = None


@dataclass(slots=True)
class Scope:
    """The names that one block binds, and the block around it."""

    names: dict[str, Variable]
    outer: Scope | None = None
    is_class: bool = False
    elsewhere: set[str] = field(default_factory=set)  # declared `global` here

    def find(self, name: str) -> Variable | None:
        """The variable that `name` means here; None if no block around binds it. Classes show only inside."""
        if name in self.elsewhere:
            return self.module().names.get(name)
        if name in self.names:
            return self.names[name]
        scope = self.outer
        while scope is not None:
            if name in scope.names and not scope.is_class:
                return scope.names[name]
            scope = scope.outer
        return None

    def module(self) -> Scope:
        scope = self
        while scope.outer is not None:
            scope = scope.outer
        return scope


def all_arguments(arguments: ast.arguments) -> list[ast.arg]:
    """Every parameter of a function, in the order in which it is written."""
    starred = [arguments.vararg] if arguments.vararg else []
    named = [arguments.kwarg] if arguments.kwarg else []
    return [*arguments.posonlyargs, *arguments.args, *starred, *arguments.kwonlyargs, *named]


def bind_block(body: list[ast.stmt], arguments: ast.arguments | None = None) -> tuple[dict[str, Variable], set[str]]:
    """Variables that the statements of one block bind (arguments first), and the names it declares global."""
    names: dict[str, Variable] = {}
    elsewhere: set[str] = set()
    outside: set[str] = set()
    for argument in all_arguments(arguments) if arguments else ():
        names[argument.arg] = Variable()
    for statement in body:
        for node in _walk_block(statement):
            if isinstance(node, ast.Global):
                elsewhere.update(node.names)
            elif isinstance(node, ast.Nonlocal):
                outside.update(node.names)
            for name, path in _bound(node):
                names[name] = Variable(path=path)
    return {name: variable for name, variable in names.items() if name not in elsewhere | outside}, elsewhere


def bind_comprehension(node: Comprehension) -> dict[str, Variable]:
    """Variables that a comprehension's `for` clauses bind."""
    targets = [target for generator in node.generators for target in ast.walk(generator.target)]
    return {target.id: Variable() for target in targets if isinstance(target, ast.Name)}


def _bound(node: ast.AST) -> Iterator[tuple[str, str | None]]:
    """(name, import path or None) for each name that this node alone binds."""
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id, None
    elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name, None
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from imported(node)
    elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
        yield node.name, None
    elif isinstance(node, ast.MatchMapping) and node.rest:
        yield node.rest, None


def _walk_block(node: ast.AST) -> Iterator[ast.AST]:
    """The node and what is below it, but not inside blocks of their own (`:=` binds outside a comprehension)."""
    yield node
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return
    if isinstance(node, Comprehension):
        yield from (inner.target for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr))
        return
    for child in ast.iter_child_nodes(node):
        yield from _walk_block(child)
