"""Every key of a configuration with its default, its limits and what it is for, as YAML that runs as it is.

In: the configuration's own definitions. Out: text; `nas-ray config` prints it and docs/configuration.md holds it.
"""

from __future__ import annotations

import textwrap
import types
import typing
from collections.abc import Iterator
from typing import Any

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from nas_ray.config import RunConfig

WIDTH = 120


def describe_config() -> str:
    """The whole reference, a YAML document of all defaults with a comment on each key."""
    lines = [f"# {line}" for line in textwrap.wrap(_first_line(RunConfig), WIDTH - 2)]
    return "\n".join([*lines, *_describe_section(RunConfig, "")]) + "\n"


def _describe_section(section: type[BaseModel], indent: str) -> Iterator[str]:
    for name, entry in section.model_fields.items():
        kind = entry.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield ""
            yield f"{indent}{name}:  # {_first_line(kind)}"
            yield from _describe_section(kind, indent + "  ")
        else:
            value = yaml.safe_dump([_plain(entry.default)], default_flow_style=True).strip()[1:-1]
            yield from _with_comment(f"{indent}{name}: {value}", _explain(entry), indent)


def _with_comment(setting: str, comment: str, indent: str) -> Iterator[str]:
    line = f"{setting}  # {comment}" if comment else setting
    if len(line) <= WIDTH:
        yield line
        return
    yield from textwrap.wrap(comment, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
    yield setting


def _explain(entry: FieldInfo) -> str:
    parts = [entry.description or "", _allowed(entry.annotation), _limits(entry.metadata)]
    return "; ".join(part for part in parts if part)


def _allowed(kind: Any) -> str:
    """The words that a key may hold, where they are few."""
    choices = [part for part in (kind, *typing.get_args(kind)) if typing.get_origin(part) is typing.Literal]
    words = ", ".join(str(word) for choice in choices for word in typing.get_args(choice))
    many = typing.get_origin(kind) is tuple
    optional = typing.get_origin(kind) is types.UnionType and types.NoneType in typing.get_args(kind)
    text = f"{'any of' if many else 'one of'} {words}" if words else ""
    return "; ".join(part for part in (text, "or null" if optional else "") if part)


def _limits(metadata: list[Any]) -> str:
    signs = ((Gt, ">", "gt"), (Ge, ">=", "ge"), (Lt, "<", "lt"), (Le, "<=", "le"))
    found = [
        f"{sign} {getattr(rule, name):g}" for rule in metadata for kind, sign, name in signs if isinstance(rule, kind)
    ]
    return " and ".join(found)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _first_line(kind: type) -> str:
    return " ".join((kind.__doc__ or "").strip().split("\n\n")[0].split())
