"""One text for all programs that differ only in names, comments, annotations, layout or import style.

In: the code of a program. Out: its tokens, joined by single spaces: what novelty compares and what the id is made of.

- local names, parameters, free attributes and top-level definitions are numbered in order of first appearance
  (`v_0`, `a_0`, `g_0`; locals start again in each method, so that a change stays local);
- imports are gone and what they bind is spelled in one way: `nn.Conv2d`, `F.relu`, `torch.cat`, `math.sqrt`;
- docstrings, annotations, `pass` beside other statements and bare literals are gone, `super(Net, self)` is `super()`;
- keyword arguments are sorted; numbers and strings stay, written as Python prints them.

Where renaming might make two different programs equal (attributes reached by `getattr`, parameters passed on by
`**options`) the names stay.
"""

from __future__ import annotations

import ast
import builtins
import io
import tokenize

from nas_ray.attributes import MODULE_NAMES, Choices, find_choices, receiver, registered_name
from nas_ray.imports import STAR, dotted_path
from nas_ray.scope import Comprehension, Function, Scope, Variable, all_arguments, bind_block, bind_comprehension

BUILTINS = frozenset(dir(builtins))
SHORT_PATHS = (("torch.nn.functional", "F"), ("torch.nn", "nn"))
LAYOUT = {tokenize.NEWLINE: ";", tokenize.INDENT: "{{", tokenize.DEDENT: "}}"}  # no Python token looks like these
SILENT = {tokenize.NL, tokenize.COMMENT, tokenize.ENDMARKER, tokenize.ENCODING}


def normalise(code: str) -> str:
    """The normalised text of a program.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: as `ast.parse`; deep nesting may show only here.
    """
    tree = ast.parse(code)
    plain = ast.unparse(_Normaliser(tree).visit(tree))
    words = []
    for token in tokenize.generate_tokens(io.StringIO(plain).readline):
        if token.type not in SILENT:
            words.append(LAYOUT.get(token.type, token.string))
    return " ".join(words)


class _Normaliser(ast.NodeTransformer):
    """Renames as it walks; one use, one tree."""

    def __init__(self, tree: ast.Module) -> None:
        self.choices: Choices = find_choices(tree)
        names, _ = bind_block(tree.body)
        self.scope = Scope(names)
        self.stars = [variable.path for name, variable in names.items() if name == STAR]
        self.signatures = _find_signatures(tree)
        self.attributes: dict[str, str] = {}
        self.globals: dict[str, str] = {}
        self.locals = 0  # variables numbered in the present method or function
        self.depth = 0  # functions around the present node
        self.receivers: list[str | None] = []
        self.classes: list[str] = []

    # names

    def _text(self, name: str) -> str:
        """The normalised spelling of a name, here."""
        variable = self.scope.find(name)
        if variable is None:
            if name in BUILTINS:
                return name
            path = f"{self.stars[0]}.{name}" if len(self.stars) == 1 else None
            return _shorten(path) if path else f"undefined_{name}"
        if variable.path is not None:
            return _shorten(variable.path)
        if variable.text is None:
            variable.text = self._new_text(name, variable)
        return variable.text

    def _new_text(self, name: str, variable: Variable) -> str:
        if self.scope.module().names.get(name) is variable:
            return name if name in MODULE_NAMES else self.globals.setdefault(name, f"g_{len(self.globals)}")
        if self.scope.is_class and self.scope.names.get(name) is variable:
            return self._attribute(name)
        self.locals += 1
        return f"v_{self.locals - 1}"

    def _attribute(self, name: str) -> str:
        if name not in self.choices.attributes:
            return name
        return self.attributes.setdefault(name, f"a_{len(self.attributes)}")

    def _path(self, node: ast.expr) -> str | None:
        def lookup(name: str) -> str | None:
            variable = self.scope.find(name)
            return variable.path if variable else None

        return dotted_path(node, lookup)

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self._text(node.id), node.ctx)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        path = self._path(node)
        if path is not None:
            return ast.Name(_shorten(path), node.ctx)
        on_self = isinstance(node.value, ast.Name) and bool(self.receivers) and node.value.id == self.receivers[-1]
        attribute = self._attribute(node.attr) if on_self else node.attr
        return ast.Attribute(self.visit(node.value), attribute, node.ctx)

    def visit_Global(self, node: ast.Global) -> ast.Global:
        return ast.Global(sorted(self._text(name) for name in node.names))

    def visit_Nonlocal(self, node: ast.Nonlocal) -> ast.Nonlocal:
        return ast.Nonlocal(sorted(self._text(name) for name in node.names))

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        node.name = self._text(node.name) if node.name else None
        return self._visit_blocks(node)

    def visit_MatchAs(self, node: ast.MatchAs) -> ast.AST:
        node.name = self._text(node.name) if node.name else None
        return self.generic_visit(node)

    def visit_MatchStar(self, node: ast.MatchStar) -> ast.AST:
        node.name = self._text(node.name) if node.name else None
        return node

    def visit_MatchMapping(self, node: ast.MatchMapping) -> ast.AST:
        node.rest = self._text(node.rest) if node.rest else None
        return self.generic_visit(node)

    # blocks

    def visit_Module(self, node: ast.Module) -> ast.Module:
        return ast.Module(self._visit_body(node.body), [])

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        name = self._definition_name(node.name)
        bases = [self.visit(base) for base in node.bases]
        keywords = [self.visit(keyword) for keyword in node.keywords]
        decorators = [self.visit(decorator) for decorator in node.decorator_list]
        names, elsewhere = bind_block(node.body)
        outer, self.scope = self.scope, Scope(names, self.scope, is_class=True, elsewhere=elsewhere)
        self.classes.append(node.name)
        typed = bool(node.decorator_list)  # a data class reads its annotations
        body = self._visit_body(node.body, keep_annotations=typed)
        self.classes.pop()
        self.scope = outer
        return ast.ClassDef(name, bases, keywords, body, decorators)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._visit_definition(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._visit_definition(node)

    def _visit_definition(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        name = self._definition_name(node.name)
        node.decorator_list = [self.visit(decorator) for decorator in node.decorator_list]
        is_method = self.scope.is_class
        if is_method:
            self.receivers.append(receiver(node))
        self._visit_function(node)
        if is_method:
            self.receivers.pop()
        node.name, node.returns = name, None
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        self._visit_function(node)
        return node

    def _visit_function(self, node: Function) -> None:
        arguments = node.args
        arguments.defaults = [self.visit(default) for default in arguments.defaults]
        arguments.kw_defaults = [self.visit(default) if default else None for default in arguments.kw_defaults]
        body: list[ast.stmt] = [ast.Expr(node.body)] if isinstance(node, ast.Lambda) else node.body
        names, elsewhere = bind_block(body, arguments)
        outer, self.scope = self.scope, Scope(names, self.scope, elsewhere=elsewhere)
        before = self.locals
        self.locals = self.locals if self.depth else 0
        self.depth += 1
        for argument in all_arguments(arguments):
            text = self._text(argument.arg)
            if self._is_fixed(argument.arg):
                text = names[argument.arg].text = f"{text}_{argument.arg}"
            argument.arg, argument.annotation = text, None
        if isinstance(node, ast.Lambda):
            node.body = self.visit(node.body)
        else:
            node.body = self._visit_body(node.body)
        self.depth -= 1
        self.locals = self.locals if self.depth else before
        self.scope = outer

    def _visit_comprehension(self, node: Comprehension) -> ast.AST:
        first, *rest = node.generators
        first.iter = self.visit(first.iter)  # belongs to the block around
        outer, self.scope = self.scope, Scope(bind_comprehension(node), self.scope)
        first.target = self.visit(first.target)
        first.ifs = [self.visit(condition) for condition in first.ifs]
        node.generators = [first, *(self.visit(generator) for generator in rest)]
        if isinstance(node, ast.DictComp):
            node.key, node.value = self.visit(node.key), self.visit(node.value)
        else:
            node.elt = self.visit(node.elt)
        self.scope = outer
        return node

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _visit_comprehension

    def _definition_name(self, name: str) -> str:
        return self._text(name) if name not in MODULE_NAMES else name

    def _visit_body(self, body: list[ast.stmt], *, keep_annotations: bool = False) -> list[ast.stmt]:
        """The statements that mean something, normalised; a `pass` where nothing is left."""
        kept: list[ast.stmt] = []
        for statement in body:
            if isinstance(statement, ast.Import | ast.ImportFrom | ast.Pass):
                continue
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                continue
            if isinstance(statement, ast.AnnAssign) and not keep_annotations:
                if statement.value is None:
                    continue
                statement = ast.Assign([statement.target], statement.value, lineno=statement.lineno)  # unparse asks
            kept.append(self.visit(statement))
        return kept or [ast.Pass()]

    def _visit_blocks(self, node: ast.AST) -> ast.AST:
        """A statement with blocks of its own: the parts in the order in which they are written."""
        for field, value in ast.iter_fields(node):
            if field in ("body", "orelse", "finalbody") and isinstance(value, list):
                setattr(node, field, self._visit_body(value) if value else [])
            elif isinstance(value, list):
                setattr(node, field, [self.visit(item) if isinstance(item, ast.AST) else item for item in value])
            elif isinstance(value, ast.AST):
                setattr(node, field, self.visit(value))
        return node

    visit_If = visit_For = visit_AsyncFor = visit_While = visit_Try = visit_TryStar = _visit_blocks
    visit_With = visit_AsyncWith = visit_match_case = _visit_blocks

    # calls

    def visit_Call(self, node: ast.Call) -> ast.Call:
        if isinstance(node.func, ast.Name) and node.func.id == "super" and self._is_own_class(node.args):
            node.args = []
        literal = registered_name(node, self.receivers[-1] if self.receivers else None)
        signature = self.signatures.get(node.func.id) if isinstance(node.func, ast.Name) else None
        for keyword in node.keywords:
            if signature and keyword.arg in signature and not self._is_fixed(keyword.arg):
                keyword.arg = f"v_{signature.index(keyword.arg)}"
        if all(keyword.arg for keyword in node.keywords):
            node.keywords.sort(key=lambda keyword: keyword.arg or "")
        call = ast.Call(
            self.visit(node.func), [self.visit(arg) for arg in node.args], [self.visit(word) for word in node.keywords]
        )
        if literal is not None:
            call.args[0] = ast.Constant(self._attribute(str(literal.value)))
        return call

    def _is_fixed(self, parameter: str) -> bool:
        return self.choices.all_parameters_fixed or parameter in self.choices.fixed_parameters

    def _is_own_class(self, args: list[ast.expr]) -> bool:
        return (
            len(args) == 2
            and all(isinstance(arg, ast.Name) for arg in args)
            and bool(self.classes and self.receivers)
            and [arg.id for arg in args if isinstance(arg, ast.Name)] == [self.classes[-1], self.receivers[-1]]
        )


def _shorten(path: str) -> str:
    for long, short in SHORT_PATHS:
        if path == long or path.startswith(f"{long}."):
            return short + path[len(long) :]
    return path


def _find_signatures(tree: ast.Module) -> dict[str, list[str]]:
    """Parameter names of the functions and classes at top level, by the name that they are called by."""
    signatures: dict[str, list[str]] = {}
    for node in tree.body:
        makers = node.body if isinstance(node, ast.ClassDef) else [node]
        for maker in makers:
            if isinstance(maker, ast.FunctionDef | ast.AsyncFunctionDef):
                name = node.name if isinstance(node, ast.ClassDef) and maker.name == "__init__" else None
                name = maker.name if maker is node else name
                if name is not None:
                    signatures[name] = [argument.arg for argument in all_arguments(maker.args)]
    return signatures
