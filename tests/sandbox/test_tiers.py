"""A tier is what the walls are worth, and a node below a run's floor is refused with the reasons."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nas_ray.sandbox.tiers import NO_WALLS, ContainmentError, Walls, check_floor

FULL = Walls(privileges="capabilities", landlock=7, seccomp=True, witness=True)


@pytest.mark.parametrize(
    ("walls", "tier"),
    [
        (FULL, "A"),
        (replace(FULL, privileges="uid"), "A"),
        (replace(FULL, privileges="unprivileged", witness=False), "A"),
        (replace(FULL, landlock=0, bubblewrap=True), "B"),
        (replace(FULL, landlock=0), "C"),
        (replace(FULL, privileges="kept"), "C"),
        (replace(FULL, seccomp=False), "D"),
        (NO_WALLS, "D"),
    ],
)
def test_tier_is_that_of_the_weakest_wall(walls: Walls, tier: str) -> None:
    assert walls.tier == tier
    assert walls.describe().startswith(f"tier {tier}: ")
    assert Walls.from_json(walls.to_json()) == walls


def test_a_node_below_the_floor_is_refused_with_reasons_and_a_way_out() -> None:
    walls = replace(FULL, landlock=0, missing=("Landlock: switched off",))
    check_floor(walls, "C")
    with pytest.raises(ContainmentError) as refusal:
        check_floor(walls, "B")
    for words in ("tier C", "tier B or better", "Landlock: switched off", "--unsafe", "containment.floor"):
        assert words in str(refusal.value)
