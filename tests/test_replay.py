"""Which pairs train again, and which never do."""

from __future__ import annotations

import pytest

from nas_ray.config import FinetuneConfig
from nas_ray.outcome import Outcome, Stage
from nas_ray.replay import Pair, choose_pairs, is_held_out
from nas_ray.schema import CandidateRow


def pairs_of(cycles: int, each: int) -> list[Pair]:
    return [
        Pair(f"{cycle:02d}{index:02d}", f"prompt {cycle}", f"code {cycle} {index}", cycle, 0.5)
        for cycle in range(cycles)
        for index in range(each)
    ]


def cycles_of(pairs: tuple[Pair, ...]) -> set[int]:
    return {pair.cycle for pair in pairs}


def test_all_replays_every_cycle() -> None:
    chosen = choose_pairs(pairs_of(5, 10), FinetuneConfig(replay="all", held_out=0), 4, seed=0)
    assert len(chosen.training) == 50
    assert chosen.held_out == ()


def test_last_replays_a_window_that_ends_with_this_cycle() -> None:
    chosen = choose_pairs(pairs_of(6, 10), FinetuneConfig(replay="last", replay_last=2), 4, seed=0)
    assert cycles_of(chosen.training) == cycles_of(chosen.held_out) == {3, 4}


def test_fraction_keeps_all_of_this_cycle_and_a_share_of_the_earlier_ones() -> None:
    config = FinetuneConfig(replay="fraction", replay_fraction=0.25, held_out=0)
    chosen = choose_pairs(pairs_of(5, 10), config, 4, seed=0)
    assert sum(pair.cycle == 4 for pair in chosen.training) == 10
    assert sum(pair.cycle < 4 for pair in chosen.training) == 10


def test_fraction_is_the_same_for_the_same_seed_in_any_order_of_pairs() -> None:
    config = FinetuneConfig(replay="fraction", replay_fraction=0.5)
    pairs = pairs_of(5, 10)
    chosen = choose_pairs(pairs, config, 4, seed=1)
    assert {*choose_pairs(pairs[::-1], config, 4, seed=1).training} == {*chosen.training}
    assert {*choose_pairs(pairs, config, 4, seed=2).training} != {*chosen.training}


@pytest.mark.parametrize("replay", ["all", "last", "fraction"])
def test_a_held_out_program_is_never_trained_on_in_any_cycle(replay: str) -> None:
    config = FinetuneConfig.model_validate({"replay": replay, "held_out": 0.3, "replay_last": 4})
    pairs = pairs_of(8, 20)
    trained: set[str] = set()
    held_out: set[str] = set()
    for cycle in range(8):
        chosen = choose_pairs(pairs, config, cycle, seed=0)
        trained |= {pair.id for pair in chosen.training}
        held_out |= {pair.id for pair in chosen.held_out}
    assert trained.isdisjoint(held_out)
    assert trained | held_out == {pair.id for pair in pairs}


def test_held_out_share_is_about_what_was_asked_and_grows_by_adding_only() -> None:
    ids = [f"{number:016x}" for number in range(5000)]
    fifth = {one for one in ids if is_held_out(one, 0.2)}
    assert 0.17 < len(fifth) / len(ids) < 0.23
    assert fifth < {one for one in ids if is_held_out(one, 0.4)}
    assert not any(is_held_out(one, 0.0) for one in ids)


def test_later_cycles_are_passed_over() -> None:
    chosen = choose_pairs(pairs_of(5, 10), FinetuneConfig(replay="all"), 1, seed=0)
    assert cycles_of(chosen.training) == {0, 1}


def test_a_program_met_twice_counts_once() -> None:
    first = Pair("aa", "old", "code", 0, 0.5)
    chosen = choose_pairs(
        [Pair("aa", "new", "code", 1, 0.6), first], FinetuneConfig(replay="all", held_out=0), 1, seed=0
    )
    assert chosen.training == (first,)


def test_no_pairs_give_an_empty_set() -> None:
    chosen = choose_pairs([], FinetuneConfig(), 0, seed=0)
    assert (chosen.training, chosen.held_out) == ((), ())


@pytest.mark.parametrize(("mode", "patch", "answer"), [("full", "", "code"), ("delta", "edit", "edit")])
def test_an_edit_teaches_as_an_edit_and_a_whole_program_as_a_whole(mode: str, patch: str, answer: str) -> None:
    row = CandidateRow(
        run="r", cycle=1, index=2, outcome=Outcome.VALID, stage=Stage.TRAIN, id="aa", prompt="prompt", code="code",
        accuracy=0.5, mode=mode, patch=patch,
    )  # fmt: skip
    pair = Pair.of(row)
    assert (pair.prompt, pair.answer, pair.code) == ("prompt", answer, "code")
