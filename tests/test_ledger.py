"""What the ledger says after a restart is what a driver needs to go on: no more, no less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nas_ray.candidate import Completion, GenerationRequest
from nas_ray.config import RunConfig
from nas_ray.ledger import Ledger
from nas_ray.outcome import Outcome, Stage
from nas_ray.schema import CandidateRow, CycleRow, EvaluationRow, NodeRow
from nas_ray.selection import Selection
from nas_ray.store import Store

CONFIG = RunConfig()


def completion(cycle: int, index: int) -> Completion:
    return Completion(cycle, index, "prompt", index, f"text {index}", 10, 3, 0.1, "stop", "vllm", 0)


def final(cycle: int, index: int, arrival: int, accuracy: float | None = 0.5) -> CandidateRow:
    outcome, stage = (Outcome.VALID, Stage.TRAIN) if accuracy is not None else (Outcome.SYNTAX_ERROR, Stage.PARSE)
    return CandidateRow(
        run="r", cycle=cycle, index=index, outcome=outcome, stage=stage, arrival=arrival, id=f"id{cycle}{index}",
        prompt="prompt", code="class Net: ...", accuracy=accuracy, novel=accuracy is not None,
    )  # fmt: skip


def evaluation(name: str, *, digest: str = CONFIG.protocol.digest, seed: int = 0) -> EvaluationRow:
    return EvaluationRow(
        id=name, cycle=0, index=0, dataset="digits", protocol=digest, seed=seed, epochs=1, accuracy=0.5, loss=1.0
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "run", CONFIG)


def reopen(store: Store) -> Ledger:
    return Ledger(Store.open(store.folder))


def test_unwritten_and_unfinished_are_told_apart_after_a_restart(store: Store) -> None:
    ledger = Ledger(store)
    for index in (2, 0, 1):
        ledger.add_completion(completion(0, index))
    ledger.add_candidate(final(0, 0, arrival=1))
    store.close()
    again = reopen(store)
    requests = [GenerationRequest(0, index, "prompt", index) for index in range(5)]
    assert [request.index for request in again.unwritten(requests)] == [3, 4]
    assert [(arrival, done.index) for arrival, done in again.unfinished(0)] == [(0, 2), (2, 1)]


def test_arrivals_go_on_counting_after_a_restart(store: Store) -> None:
    ledger = Ledger(store)
    assert [ledger.add_completion(completion(0, index)) for index in range(3)] == [0, 1, 2]
    store.close()
    again = Ledger(Store.open(store.folder))
    assert again.add_completion(completion(0, 3)) == 3


def test_closed_cycle_names_the_next_one_and_its_adapter(store: Store) -> None:
    ledger = Ledger(store)
    assert (ledger.next_cycle, ledger.adapter, ledger.adapter_folder) == (0, 0, None)
    ledger.close_cycle(CycleRow(cycle=0, adapter=1))
    store.close()
    again = reopen(store)
    assert (again.next_cycle, again.adapter) == (1, 1)
    assert again.adapter_folder == store.adapter_folder(1)


def test_evaluation_counts_only_under_the_runs_own_protocol_and_seed(store: Store) -> None:
    store.append_evaluation(evaluation("mine"))
    store.append_evaluation(evaluation("other recipe", digest="00000000"))
    store.append_evaluation(evaluation("other seed", seed=5))
    ledger = Ledger(store)
    assert [row.id for row in ledger.evaluations("mine")] == ["mine"]
    assert ledger.evaluations("other recipe") == []
    assert ledger.evaluations("other seed") == []


def test_what_was_measured_for_another_purpose_or_on_the_test_split_is_none_of_the_searchs(store: Store) -> None:
    store.append_evaluation(replace(evaluation("mine"), purpose="final", split="test"))
    store.append_evaluation(replace(evaluation("mine"), purpose="final"))
    assert Ledger(store).evaluations("mine") == []
    own = evaluation("mine")
    store.append_evaluation(own)
    assert Ledger(store).evaluations("mine") == [own]


def test_a_node_is_kept_once_also_after_a_restart(store: Store) -> None:
    row = NodeRow(node="n1", walls="tier A: all", tier="A")
    ledger = Ledger(store)
    ledger.add_node(row)
    ledger.add_node(row)
    store.close()
    again = reopen(store)
    again.add_node(row)
    again.add_node(NodeRow(node="n2", walls="tier A: all", tier="A"))
    assert [kept.node for kept in again.store.nodes()] == ["n1", "n2"]


def test_pairs_are_the_elites_and_top_ups_of_closed_cycles_then_the_fresh_selection(store: Store) -> None:
    ledger = Ledger(store)
    for index in range(3):
        ledger.add_completion(completion(0, index))
        ledger.add_candidate(final(0, index, arrival=index))
    ledger.close_cycle(CycleRow(cycle=0, elite_ids=("id02",), top_up_ids=("id00",)))
    fresh = final(1, 0, arrival=3)
    ledger.add_candidate(fresh)
    assert [pair.id for pair in ledger.pairs()] == ["id00", "id02"]
    assert [pair.id for pair in ledger.pairs(Selection((fresh,), (), 0.5))] == ["id00", "id02", "id10"]
