"""`--unsafe`: run candidates on a machine that cannot hold them, because a person says so.

In: a configuration and whether the option was given. Out: the configuration with the lowest floor, and one line of
warning. Imports no Ray, so that commands which only read a run may use it.
"""

from __future__ import annotations

from typing import Annotated

import typer

from nas_ray.config import RunConfig

LOWEST = "D"  # limits and the watchdog alone
Unsafe = Annotated[
    bool,
    typer.Option(
        "--unsafe",
        help="Run programs on machines that cannot contain them (containment.floor = D). For code you trust.",
    ),
]


def lower_floor(config: RunConfig, unsafe: bool) -> RunConfig:
    """`config`, which accepts any machine where a person asked for that; says so once on stderr."""
    if not unsafe:
        return config
    typer.echo(
        "warning: --unsafe: programs written by the model also run on machines without walls around them, where they "
        "can read files, open connections and stop processes of this user.",
        err=True,
    )
    containment = config.containment.model_copy(update={"floor": LOWEST})
    return config.model_copy(update={"containment": containment})
