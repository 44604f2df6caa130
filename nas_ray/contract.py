"""Does a program look like a candidate: the classes and signatures that the engine calls, and nothing beyond its reach.

In: a `Program`. Out: None, or a `Rejection` with `contract_error` (what was found and what is wanted) or, where reading
is the only screen, `forbidden` (the act and its line in `Program.code`, see `nas_ray.forbidden`). Nothing is executed.

    class Net(nn.Module):
        def __init__(self, in_shape, out_shape, prm, device): ...
        def forward(self, x): ...
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from nas_ray.candidate import Program
from nas_ray.forbidden import find_forbidden
from nas_ray.imports import STAR, dotted_path, imported_names
from nas_ray.outcome import Outcome, Rejection, Stage

INIT_PARAMETERS = ("in_shape", "out_shape", "prm", "device")
MODULE_BASE = "torch.nn"

Method = ast.FunctionDef | ast.AsyncFunctionDef


def check_contract(program: Program, screens: bool = False) -> Rejection | None:
    """None if the program follows the contract as far as reading it can tell.

    With `screens` it is also refused for what it looks like; without, the sandbox's walls judge what it does.
    """
    tree = ast.parse(program.code)
    found = next(_contract_errors(tree), None)
    if found is not None:
        return Rejection(Outcome.CONTRACT_ERROR, Stage.CONTRACT, found)
    acts = find_forbidden(tree) if screens else []
    return Rejection(Outcome.FORBIDDEN, Stage.CONTRACT, acts[0]) if acts else None


def _contract_errors(tree: ast.Module) -> Iterator[str]:
    """What the engine would miss, first things first."""
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}  # the last of a name counts
    net = classes.get("Net")
    if net is None:
        others = f"the classes {', '.join(classes)}" if classes else "no class"
        yield f"there is no class Net(nn.Module) at top level, but {others}"
        return
    lineage = _lineage(net, classes)
    if not _is_module(lineage, imported_names(tree.body)):
        written = ", ".join(ast.unparse(base) for base in net.bases) or "nothing"
        yield f"line {net.lineno}: Net must be a subclass of torch.nn.Module, but its base is {written}"
        return
    yield from _method_errors(lineage, "__init__", f"__init__(self, {', '.join(INIT_PARAMETERS)})")
    yield from _method_errors(lineage, "forward", "forward(self, x)")


def _method_errors(lineage: list[ast.ClassDef], name: str, wanted: str) -> Iterator[str]:
    methods = [node for parent in lineage for node in reversed(parent.body) if isinstance(node, Method)]
    method = next((node for node in methods if node.name == name), None)
    if method is None:
        yield f"Net has no method {name}; wanted is {wanted}"
        return
    found = f"{name}({ast.unparse(method.args)})"
    where = f"line {method.lineno}: "
    decorators = {node.id for node in method.decorator_list if isinstance(node, ast.Name)}
    kinds = decorators & {"staticmethod", "classmethod", "property"}
    if kinds:
        yield f"{where}{name} is a {kinds.pop()}, but must be a plain method {wanted}"
    elif isinstance(method, ast.AsyncFunctionDef):
        yield f"{where}{name} is async, but must be a plain method {wanted}"
    elif _is_generator(method):
        yield f"{where}{name} yields, which makes it a generator; wanted is a method that returns"
    elif not (_is_init(method.args) if name == "__init__" else _is_forward(method.args)):
        yield f"{where}found {found}, wanted {wanted}"


def _lineage(net: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> list[ast.ClassDef]:
    """The class and those of its ancestors that the program defines, nearest first."""
    lineage = [net]
    for parent in lineage:
        names = [base.id for base in parent.bases if isinstance(base, ast.Name)]
        lineage += [classes[name] for name in names if name in classes and classes[name] not in lineage]
    return lineage


def _is_module(lineage: list[ast.ClassDef], imports: dict[str, str]) -> bool:
    """True where some ancestor comes from torch.nn, by whatever spelling of the import."""
    star = imports.get(STAR)
    for parent in lineage:
        for base in parent.bases:
            path = dotted_path(base, lambda name: imports.get(name, f"{star}.{name}" if star else None))
            if path is not None and path.startswith(f"{MODULE_BASE}."):
                return True
    return False


def _is_init(args: ast.arguments) -> bool:
    names = tuple(argument.arg for argument in [*args.posonlyargs, *args.args])
    return names[1:] == INIT_PARAMETERS and not (args.vararg or args.kwonlyargs or args.kwarg)


def _is_forward(args: ast.arguments) -> bool:
    """True if it can be called with one image batch and nothing else."""
    positional = len(args.posonlyargs) + len(args.args)
    required = positional - len(args.defaults)
    takes_one = positional >= 2 or (positional == 1 and args.vararg is not None)
    return takes_one and required <= 2 and all(default is not None for default in args.kw_defaults)


def _is_generator(method: Method) -> bool:
    """True if the method itself yields; functions inside it may."""
    waiting: list[ast.AST] = list(method.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(node, Method | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)
    return False
