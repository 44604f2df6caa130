"""Print every configuration key with its default, limits and purpose.

nas-ray config > my_search.yaml        (a configuration that runs as it is; delete what you do not change)
"""

from __future__ import annotations

import typer

from nas_ray.config_reference import describe_config


def config_command() -> None:
    """Print all configuration keys as YAML, each with its default, its limits and what it is for.

    Example:  nas-ray config > my_search.yaml && nas-ray search --config my_search.yaml
    """
    typer.echo(describe_config(), nl=False)
