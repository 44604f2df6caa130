"""What a candidate may not do, as far as reading its code can tell.

In: a program's tree. Out: the acts, with their lines. Nothing is executed.

This is a screen, not a wall: it refuses, cheaply and with a clear word, what a language model writes by habit (reading
files, downloading weights, starting processes). A program that wants to get around it can, as any list of forbidden
names can be got around, and a harmless program may look like one that is not. So it is used where a node has no walls
worth the name, or where a run asks for it (`containment.screen`); elsewhere programs are judged by what they do.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from nas_ray.imports import dotted_path, imported_names

Method = ast.FunctionDef | ast.AsyncFunctionDef


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Modules that may be imported, with everything below them. All are there wherever nas-ray is installed: torchvision and
# einops are not on the list because a search must not depend on which machine a candidate lands on.
ALLOWED_MODULES = _words(
    "torch.nn torch.optim torch.utils.checkpoint torch.utils.parametrizations torch.fft torch.linalg torch.special "
    "torch.distributions torch.autograd torch.amp torch.cuda.amp torch.types numpy __future__ abc bisect collections "
    "contextlib copy dataclasses decimal enum fractions functools heapq itertools math numbers operator random re "
    "statistics string time typing typing_extensions warnings"
)
ALLOWED_ALONE = frozenset({"torch"})  # the module itself, not everything below it

FORBIDDEN_NAMES = _words(
    "open exec eval compile __import__ input breakpoint globals exit quit __builtins__ __loader__ __spec__"
)
# What can be reached through an allowed module but is not for candidates; everything below is meant too.
FORBIDDEN_PATHS = _words(
    "torch.load torch.save torch.hub torch.serialization torch.package torch.jit torch.compile torch.export torch.onnx "
    "torch.multiprocessing torch.distributed torch.utils.cpp_extension torch.utils.model_zoo torch.utils.data "
    "torch.ops.load_library torch.classes torch.from_file torch.UntypedStorage torch.library torch._C torch._dynamo "
    "torch._inductor numpy.load numpy.save numpy.savez numpy.savez_compressed numpy.savetxt numpy.loadtxt "
    "numpy.genfromtxt numpy.fromfile numpy.fromregex numpy.memmap numpy.ctypeslib numpy.f2py numpy.lib "
    "numpy.testing numpy.DataSource"
)
FORBIDDEN_ATTRIBUTES = _words(
    "os sys subprocess shutil socket ctypes importlib builtins _os _sys __subclasses__ __globals__ __builtins__ "
    "__code__ __closure__ __bases__ __base__ __mro__ __import__ __loader__ __reduce__ __reduce_ex__ "
    "__getattribute__ f_globals "
    "f_builtins gi_frame tb_frame load_library tofile"
)
FORBIDDEN_DUNDERS = frozenset(name for name in FORBIDDEN_ATTRIBUTES if name.startswith("__"))


def find_forbidden(tree: ast.Module) -> list[str]:
    """Every forbidden act, as `line 3: import of os; ...`, in the order of the lines."""
    return [f"line {line}: {act}" for line, act in sorted(_forbidden_acts(tree))]


def _forbidden_acts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, act) for everything that a candidate may not do."""
    nodes = list(ast.walk(tree))
    imports = imported_names(node for node in nodes if isinstance(node, ast.stmt))
    own = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    own |= {node.name for node in nodes if isinstance(node, Method | ast.ClassDef)}
    own |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((node.lineno, act) for act in _import_acts(node))
        elif isinstance(node, ast.Name) and node.id in FORBIDDEN_NAMES - own:
            yield node.lineno, f"use of {node.id}"
        elif isinstance(node, ast.Attribute):
            path = dotted_path(node, imports.get)
            if path is not None and _is_below(path, FORBIDDEN_PATHS):
                yield node.lineno, f"use of {path}"
            elif node.attr in FORBIDDEN_ATTRIBUTES:
                yield node.lineno, f"use of the attribute {node.attr}"
        elif isinstance(node, ast.Constant) and node.value in FORBIDDEN_DUNDERS:  # getattr(x, "__globals__")
            yield node.lineno, f"use of the name {node.value!r}"


def _import_acts(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """What an import brings in that it should not."""
    if isinstance(node, ast.Import):
        named = [(alias.name, alias.name) for alias in node.names]
    else:
        module = "." * node.level + (node.module or "")
        named = [(module, f"{module}.{alias.name}") for alias in node.names]
    for module, path in named:
        if _is_below(path, FORBIDDEN_PATHS) or path.rpartition(".")[2] in FORBIDDEN_ATTRIBUTES - {module}:
            yield f"import of {path}"
        elif module not in ALLOWED_ALONE and not _is_below(path, ALLOWED_MODULES):
            yield f"import of {module}; allowed are torch, torch.nn, numpy, math, typing and others of their kind"


def _is_below(path: str, roots: frozenset[str]) -> bool:
    parts = path.split(".")
    return any(".".join(parts[:length]) in roots for length in range(1, len(parts) + 1))
