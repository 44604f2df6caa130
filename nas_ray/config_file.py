"""Configurations as people write them: a YAML file and `--set a.b=c` overrides.

In: the file and the overrides. Out: a frozen, fully checked `RunConfig`, or one `ConfigError` that lists every mistake
at once (key, value, what is allowed).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from nas_ray.config import RunConfig


class ConfigError(ValueError):
    """A configuration that cannot be run. `mistakes` holds one line each, all of them found."""

    def __init__(self, source: str, mistakes: Sequence[str]) -> None:
        self.mistakes = tuple(mistakes)
        count = "1 mistake" if len(self.mistakes) == 1 else f"{len(self.mistakes)} mistakes"
        super().__init__(f"{source} has {count}:\n" + "\n".join(f"  - {line}" for line in self.mistakes))


def load_config(source: str | Path | None, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a configuration from a YAML file (None: all defaults) and apply `a.b=c` overrides, values in YAML.

    Raises ConfigError with every mistake: unreadable file, malformed override, unknown key, wrong type or value.
    """
    name = str(source) if source is not None else "the configuration"
    values: dict[str, Any] = {}
    if source is not None:
        values = _read_yaml(Path(source))
    mistakes = [mistake for text in overrides if (mistake := _apply_override(values, text))]
    return parse_config(values, name, mistakes)


def override_config(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """`config` with `a.b=c` overrides applied, values in YAML. Raises ConfigError as `load_config` does."""
    values = config.model_dump(mode="json")
    mistakes = [mistake for text in overrides if (mistake := _apply_override(values, text))]
    return parse_config(values, "the configuration", mistakes)


def parse_config(values: Mapping[str, Any], source: str, mistakes: Sequence[str] = ()) -> RunConfig:
    """Check plain values. `mistakes` are those found before; raises ConfigError with them and all others."""
    found = list(mistakes)
    config: RunConfig | None = None
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        found += [_describe(dict(item)) for item in error.errors()]
    if found or config is None:
        raise ConfigError(source, found)
    return config


def dump_config(config: RunConfig) -> str:
    """The whole configuration as YAML, defaults included; `load_config` reads it back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror or error}"]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"is not YAML: {' '.join(str(error).split())}"]) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(str(path), [f"must hold keys and values, but holds a {type(values).__name__}"])
    return values


def _apply_override(values: dict[str, Any], text: str) -> str | None:
    """Set one `a.b=c` in place; returns the mistake, if any."""
    key, separator, value = text.partition("=")
    keys = key.strip().split(".")
    if not separator or not all(keys):
        return f"--set {text}: write it as key=value, for example --set protocol.lr=0.05"
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        return f"--set {text}: the value is not YAML: {' '.join(str(error).split())}"
    place = values
    for part in keys[:-1]:
        inner = place.setdefault(part, {})
        if not isinstance(inner, dict):
            return f"--set {text}: {part} is a single value, it has no part named {keys[-1]}"
        place = inner
    place[keys[-1]] = parsed
    return None


def _describe(item: dict[str, Any]) -> str:
    """One line on one mistake that pydantic found: where, the value, what is allowed."""
    keys = [str(part) for part in item["loc"]]
    where = ".".join(keys) or "as a whole"
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown key{_suggestion(keys)}"
    message = str(item["msg"]).removeprefix("Value error, ")
    if isinstance(item.get("input"), BaseModel | dict) or not keys:
        return f"{where}: {message}"
    return f"{where} = {item['input']!r}: {message[0].lower() + message[1:]}"


def _suggestion(keys: Sequence[str]) -> str:
    model: type[BaseModel] = RunConfig
    for key in keys[:-1]:
        annotation = model.model_fields[key].annotation if key in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return ""
        model = annotation
    allowed = list(model.model_fields)
    close = difflib.get_close_matches(keys[-1], allowed, n=1)
    return f"; did you mean {close[0]}?" if close else f"; allowed: {', '.join(allowed)}"
