"""Which attribute and parameter names of a program are its own choice, so that renaming them changes nothing.

In: a program's tree. Out: `Choices`. An attribute is free when the program itself sets it on `self` (or defines it as a
method or in a class body) and reaches it in no other way; in doubt it is not free, so that two different programs never
get the same normalised text.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nas_ray.imports import dotted_path, imported_names


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Names that torch.nn.Module, the candidate contract or Python give a meaning to.
MODULE_NAMES = _words(
    "add_module apply bfloat16 buffers call_super_init children compile cpu cuda double dump_patches eval extra_repr "
    "float forward get_buffer get_extra_state get_parameter get_submodule half ipu load_state_dict modules mtia "
    "named_buffers named_children named_modules named_parameters parameters register_backward_hook register_buffer "
    "register_forward_hook register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook "
    "register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module register_parameter "
    "register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state set_submodule "
    "share_memory state_dict to to_empty train training type xpu zero_grad learn train_setup supported_hyperparameters "
    "Net"
)
# Ways to reach an attribute by a name that is only known when the program runs.
REFLECTION = _words(
    "getattr setattr hasattr delattr vars dir __dict__ _modules _parameters _buffers named_modules named_children "
    "named_parameters named_buffers get_submodule get_parameter get_buffer set_submodule state_dict load_state_dict"
)
REGISTRATION = frozenset({"register_buffer", "register_parameter", "register_module", "add_module"})
PLAIN_BASES = frozenset({"torch.nn.Module", "object"})

Method = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Choices:
    """What may be renamed."""

    attributes: frozenset[str]
    fixed_parameters: frozenset[str]  # parameters that some call names in a way that cannot be followed
    all_parameters_fixed: bool  # a call passes names that are known only when the program runs


def find_choices(tree: ast.Module) -> Choices:
    """Read a whole program."""
    imports = imported_names(tree.body)
    definitions = {node.name for node in tree.body if isinstance(node, ast.ClassDef | Method)}
    nodes = list(ast.walk(tree))
    own: set[str] = set()
    fixed: set[str] = set()
    on_self: set[int] = set()  # attribute nodes on a method's own first parameter
    unowned = _unowned_classes(nodes, imports.get, definitions)
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            names = set(_class_names(node, on_self))
            own |= names
            fixed |= names if node.name in unowned else set()
    fixed |= {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and id(node) not in on_self and dotted_path(node, imports.get) is None
    }
    if any(_is_reflection(node) for node in nodes):
        fixed |= own
    unclear = [node for node in nodes if isinstance(node, ast.Call) and _is_unclear(node, own, definitions, imports)]
    return Choices(
        attributes=frozenset(name for name in own - fixed - MODULE_NAMES if not name.startswith("__")),
        fixed_parameters=frozenset(word.arg for call in unclear for word in call.keywords if word.arg),
        all_parameters_fixed=any(word.arg is None for call in unclear for word in call.keywords),
    )


def receiver(method: Method) -> str | None:
    """Name of a method's first parameter (`self`); None for a static method or one without parameters."""
    if any(isinstance(node, ast.Name) and node.id == "staticmethod" for node in method.decorator_list):
        return None
    positional = [*method.args.posonlyargs, *method.args.args]
    return positional[0].arg if positional else None


def registered_name(call: ast.Call, self_name: str | None) -> ast.Constant | None:
    """The literal name in `self.register_buffer("name", ...)` and its like."""
    function = call.func
    if (
        isinstance(function, ast.Attribute)
        and function.attr in REGISTRATION
        and isinstance(function.value, ast.Name)
        and function.value.id == self_name
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    ):
        return call.args[0]
    return None


def _unowned_classes(nodes: list[ast.AST], lookup: Callable[[str], str | None], definitions: set[str]) -> set[str]:
    """Classes with a base, however far up, that this program does not define and that may use their attributes."""
    bases = {
        node.name: {dotted_path(base, lookup) or ast.unparse(base) for base in node.bases}
        for node in nodes
        if isinstance(node, ast.ClassDef)
    }
    unowned: set[str] = set()
    while True:
        found = {name for name, above in bases.items() if not above <= (PLAIN_BASES | definitions) - unowned}
        if found == unowned:
            return unowned
        unowned = found


def _class_names(node: ast.ClassDef, on_self: set[int]) -> Iterator[str]:
    """Attributes that a class defines: in its body, as methods, on `self` in its methods. Adds to `on_self`."""
    for statement in node.body:
        if isinstance(statement, Method):
            yield statement.name
            self_name = receiver(statement)
            for inner in ast.walk(statement):
                if isinstance(inner, ast.Attribute):
                    if isinstance(inner.value, ast.Name) and inner.value.id == self_name:
                        on_self.add(id(inner))
                        if not isinstance(inner.ctx, ast.Load):
                            yield inner.attr
                elif isinstance(inner, ast.Call) and (literal := registered_name(inner, self_name)):
                    yield str(literal.value)
        else:
            for inner in ast.walk(statement):
                if isinstance(inner, ast.Name) and not isinstance(inner.ctx, ast.Load):
                    yield inner.id
                elif isinstance(inner, ast.ClassDef):
                    yield inner.name


def _is_reflection(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in REGISTRATION:
        return not (node.args and isinstance(node.args[0], ast.Constant))
    return (isinstance(node, ast.Name) and node.id in REFLECTION) or (
        isinstance(node, ast.Attribute) and node.attr in REFLECTION
    )


def _is_unclear(call: ast.Call, own: set[str], definitions: set[str], imports: dict[str, str]) -> bool:
    """True where a keyword of the call may reach a function of the program by a way that is not followed."""
    if not call.keywords:
        return False
    if isinstance(call.func, ast.Name) and call.func.id in definitions:
        return any(word.arg is None for word in call.keywords)  # else each keyword is translated
    arguments = [*call.args, *(word.value for word in call.keywords)]
    parts = (node for argument in arguments for node in ast.walk(argument))
    if any(isinstance(part, ast.Name) and part.id in definitions for part in parts):
        return True  # functools.partial(Block, stride=2)
    if dotted_path(call.func, imports.get) is not None:
        return False
    return not isinstance(call.func, ast.Attribute) or call.func.attr in own
