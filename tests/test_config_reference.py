"""The printed reference runs as it is, and the documentation holds it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import yaml

from nas_ray.config import RunConfig
from nas_ray.config_file import parse_config
from nas_ray.config_reference import describe_config


def test_reference_is_the_default_configuration() -> None:
    assert parse_config(yaml.safe_load(describe_config()), "the reference") == RunConfig()


def test_every_key_says_what_it_is_for_or_what_it_allows() -> None:
    lines = describe_config().splitlines()
    bare = [
        line
        for before, line in pairwise(lines)
        if ":" in line and "#" not in line and not before.strip().startswith("#")
    ]
    assert bare == []


def test_documentation_holds_the_reference() -> None:
    assert describe_config() in Path("docs/configuration.md").read_text()
