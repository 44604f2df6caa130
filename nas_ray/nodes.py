"""The nodes that candidates run on, and how well each one holds them.

In: `NodeRow`s, as probes found them. Out: a refusal that names every node below the floor, and one line for a person.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nas_ray.sandbox.tiers import ContainmentError
from nas_ray.schema import NodeRow


def name_node(row: NodeRow) -> str:
    """A node as a person knows it."""
    return f"{row.host or row.node} ({row.address})" if row.address else row.host or row.node


def check_nodes(rows: Iterable[NodeRow], floor: str) -> None:
    """Raises ContainmentError where a node is below `floor`; it names all of them, with the reasons.

    One such node refuses the whole cluster: builders take no CPU, so Ray may put them anywhere.
    """
    weak = [row for row in rows if row.tier > floor]  # tiers are letters, and A is the best
    if not weak:
        return
    head = "1 node holds" if len(weak) == 1 else f"{len(weak)} nodes hold"
    lines = [
        f"  - node {name_node(row)}: tier {row.tier}; {'; '.join(row.missing) or 'no reason given'}" for row in weak
    ]
    raise ContainmentError(
        f"{head} candidates less well than containment.floor = {floor} asks:\n"
        + "\n".join(lines)
        + "\nGive what is missing, take such nodes out of the cluster, or lower containment.floor. --unsafe runs on "
        "any machine: for programs that you trust, or a machine that holds nothing you would miss."
    )


def describe_nodes(rows: Sequence[NodeRow]) -> str:
    """One line on all nodes of a run; a machine that joined more than once counts once."""
    if not rows:
        return "Containment: not recorded."
    machines: dict[str, dict[tuple[str, str], None]] = {}  # walls -> machines, in the order of the rows
    for row in sorted(rows, key=lambda row: row.tier):
        machines.setdefault(row.walls, {})[row.host, row.address] = None
    kinds = [f"{len(on)} node{'s' if len(on) > 1 else ''} at {walls}." for walls, on in machines.items()]
    return f"Containment: {' '.join(kinds)}"
