"""The gate of a cluster: no candidate before every node has shown that it can hold one.

In: a configuration; Ray is connected. Out: each node's tier on the terminal and in the run folder, or a
`ContainmentError` that names the nodes below `containment.floor`. Nodes that join later pass the same gate.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.text import Text

from actors.nodes import NodeProbes
from jobs.live import Watcher
from jobs.tables import open_console
from nas_ray.config import RunConfig
from nas_ray.ledger import Ledger
from nas_ray.nodes import check_nodes, name_node
from nas_ray.schema import NodeRow

ANSWER_SECONDS = 120.0  # for the first answers: a busy machine starts a worker and a child for each
LOOK_SECONDS = 2.0  # between two looks at the cluster during a search
BEST = "A"


class NodeGate:
    """Lets a search pass. Ray is connected before it is made; `open` comes first, `watch` as often as one likes."""

    def __init__(self, config: RunConfig) -> None:
        self._floor = config.containment.floor
        self._probes = NodeProbes(gpus=config.resources.evaluator_gpus > 0)
        self._warned: set[str] = set()  # kinds of walls
        self._unkept: list[NodeRow] = []
        self._looked = 0.0

    def open(self, console: Console | None = None) -> None:
        """Wait until all nodes that are there have answered; `console` is standard output where none is given.

        Raises ContainmentError where one is too weak.
        """
        console = console or open_console()

        def say(text: str) -> None:
            console.print(Text(text), soft_wrap=True)

        def warn(text: str) -> None:
            say(f"warning: {text}")

        rows = self._probes.wait(ANSWER_SECONDS)
        self._report(rows, say, warn)
        check_nodes(rows, self._floor)
        for name in self._probes.unanswered:
            warn(f"node {name} has not said within {ANSWER_SECONDS:g} s what it can hold; it is judged when it does.")

    def watch(self, ledger: Ledger, watcher: Watcher) -> None:
        """Keep what is known of the nodes, and judge those that have joined. Cheap: looks every few seconds.

        Raises ContainmentError where one is too weak, after it was printed and kept.
        """
        rows: list[NodeRow] = []
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            rows = self._probes.poll()
            self._report(rows, watcher.say, watcher.warn)
            self._looked = time.monotonic()
        while self._unkept:
            ledger.add_node(self._unkept.pop(0))
        check_nodes(rows, self._floor)

    def _report(self, rows: list[NodeRow], say: Callable[[str], None], warn: Callable[[str], None]) -> None:
        """Print each node once, and why it is no better where it is not, once for each kind."""
        for row in rows:
            self._unkept.append(row)
            say(f"node {name_node(row)}: {row.walls}")
            if row.tier > BEST and row.walls not in self._warned:
                self._warned.add(row.walls)
                warn(f"tier {row.tier}, not {BEST}: {'; '.join(row.missing) or 'no reason given'}")
