"""A transfer takes the elites, keeps its columns apart, and counts every failure."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from sample_run import make_run

from nas_ray import rank_correlation
from nas_ray.config import DatasetConfig, RunConfig
from nas_ray.config_file import ConfigError, override_config
from nas_ray.leaderboard import rank
from nas_ray.outcome import Outcome
from nas_ray.reevaluation import ReevaluationError, read_scores
from nas_ray.schema import CandidateRow, EvaluationRow
from nas_ray.store import Store
from nas_ray.transfer import SEARCH, Transfer, change_conditions, choose_elites, plan_targets

OWN = RunConfig()


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_correlation, "RESAMPLES", 50)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Only read."""
    return make_run(tmp_path_factory.mktemp("runs") / "run")


def measure(candidates: list[CandidateRow], names: list[str], failing: int = 0, seeds: int = 1) -> Transfer:
    """A transfer in which a data set's accuracy is a function of the search's; the first `failing` run out of time."""
    targets = plan_targets(OWN, OWN, names, seeds, remeasure=True)
    rows = []
    for target in targets:
        for number, candidate in enumerate(candidates):
            assert candidate.accuracy is not None
            fails = number < failing and not target.searched
            accuracy = candidate.accuracy**2 if target.searched else 1 - candidate.accuracy
            rows += [
                EvaluationRow(
                    id=candidate.id, cycle=candidate.cycle, index=candidate.index, dataset=target.name,
                    protocol=target.protocol, seed=seed, epochs=target.epochs, purpose="transfer", loss=None,
                    accuracy=None if fails else accuracy, outcome=Outcome.TIMEOUT if fails else Outcome.VALID,
                    detail="60 s are over" if fails else "",
                )
                for seed in target.seeds
            ]  # fmt: skip
    scores = read_scores(rows, [row.id for row in candidates], targets)
    return Transfer(tuple(candidates), tuple(targets), scores, OWN.protocol.digest)


def test_elites_are_those_that_the_cycles_chose_best_first(store: Store) -> None:
    elites = choose_elites(store.candidates(), store.cycles())
    assert {row.id for row in elites} == {one for cycle in store.cycles() for one in cycle.elite_ids}
    assert elites == [row for row in rank(store.candidates()) if row in elites]
    assert len(rank(store.candidates())) > len(elites) > 5


def test_top_and_sample_are_disjoint_parts_of_the_elites_and_always_the_same(store: Store) -> None:
    rows, cycles = store.candidates(), store.cycles()
    elites = choose_elites(rows, cycles)
    assert choose_elites(rows, cycles, top=3) == elites[:3]
    both = choose_elites(rows, cycles, top=3, sample=2)
    assert both[:3] == elites[:3]
    assert len(both) == 5
    assert set(both[3:]) < set(elites[3:])
    assert choose_elites(rows, cycles, top=3, sample=2) == both
    assert set(choose_elites(rows, cycles, sample=3)) < set(choose_elites(rows, cycles, sample=5))
    assert set(choose_elites(rows, cycles, sample=999)) == set(elites)


def test_run_without_elites_says_so(tmp_path: Path) -> None:
    store = make_run(tmp_path / "run", cycles=0, unfinished=3)
    with pytest.raises(ReevaluationError, match="no elites yet"):
        choose_elites(store.candidates(), store.cycles())


def test_own_data_set_is_measured_again_from_seeds_that_the_search_did_not_use() -> None:
    own, other = plan_targets(OWN, OWN, ["fashion-mnist"], 2, remeasure=True)
    assert (own.name, own.searched, other.name, other.searched) == ("digits", True, "fashion-mnist", False)
    assert own.seeds == other.seeds == (1000, 1001)
    assert own.protocol == other.protocol == OWN.protocol.digest
    assert [target.name for target in plan_targets(OWN, OWN, ["mnist"], 1, remeasure=False)] == ["mnist"]


def test_changes_of_the_data_are_for_the_other_data_sets_and_those_of_the_protocol_for_all() -> None:
    used = override_config(OWN, ["dataset.train_limit=50"])
    own, other = plan_targets(OWN, used, ["fashion-mnist=/data"], 1, remeasure=True)
    assert (own.dataset, own.protocol) == (OWN.dataset, OWN.protocol.digest)
    assert other.dataset == DatasetConfig(name="fashion-mnist", root="/data", train_limit=50)
    assert other.protocol != own.protocol
    used = override_config(OWN, ["protocol.epochs=3"])
    assert {target.protocol for target in plan_targets(OWN, used, ["mnist"], 1, True)} == {used.protocol.digest}


def test_every_data_set_that_a_run_searched_on_is_measured_again() -> None:
    several = RunConfig(also=(DatasetConfig(name="mnist"),))
    targets = plan_targets(several, several, ["svhn"], 1, True)
    assert [target.name for target in targets] == ["digits", "mnist", "svhn"]
    assert [target.searched for target in targets] == [True, True, False]
    assert [target.built for target in targets] == [True, False, False]


@pytest.mark.parametrize(
    ("change", "built"),
    [
        ("protocol.resolution=16", False),
        ("budget.parameters=1000", False),
        ("budget.flops=1000", False),
        ("budget.memory_gib=1", False),
        ("budget.train_seconds=600", True),
        ("protocol.epochs=3", True),
        ("dataset.train_limit=50", True),
    ],
)
def test_candidates_are_built_again_wherever_the_searchs_builds_do_not_hold(change: str, built: bool) -> None:
    own, other = plan_targets(OWN, change_conditions(OWN, [change]), ["mnist"], 1, remeasure=True)
    assert (own.searched, own.built) == (True, built)
    assert (other.searched, other.built) == (False, False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("protocol.seed=5", "--seeds says how many"),
        ("budget.latency_ms=2", "limit on latency is held in the search alone"),
        ("dataset.name=mnist", "--to names the data sets"),
        ("dataset.root=/data", "said in --to"),
        ("containment.screen=always", "screened in the search alone"),
        ("evaluation.seeds=3", "has no effect on a transfer"),
        ("cycles=3", "has no effect on a transfer"),
        ("protocol={seed: 5}", "has no effect on a transfer"),
    ],
)
def test_a_change_without_effect_is_refused_with_what_may_be_set(change: str, message: str) -> None:
    allowed = (
        r"dataset\.\* \(but name and root\), protocol\.\* \(but seed\), budget\.\* \(but latency_ms\), resources\.\*"
    )
    with pytest.raises(ReevaluationError, match=f"(?s){message}.*What may be set: {allowed}"):
        change_conditions(OWN, ["protocol.epochs=3", change])


def test_other_mistakes_in_a_change_are_told_as_everywhere() -> None:
    with pytest.raises(ConfigError, match="did you mean epochs"):
        change_conditions(OWN, ["protocol.epoch=3"])
    with pytest.raises(ConfigError, match="write it as key=value"):
        change_conditions(OWN, ["protocol.epochs"])


def test_a_run_with_rungs_may_be_transferred_with_fewer_epochs() -> None:
    own = override_config(OWN, ["protocol.epochs=9", "evaluation.scheduler=asha", "evaluation.grace_epochs=3"])
    assert change_conditions(own, ["protocol.epochs=1"]).protocol.epochs == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([""], "name data sets, as in --to"),
        (["mnist", "digits"], "digits, which this run has searched on"),
        (["mnist", "mnist=/elsewhere"], "twice: mnist, mnist"),
    ],
)
def test_names_that_make_no_sense_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(ReevaluationError, match=message):
        plan_targets(OWN, OWN, names, 1, remeasure=True)


def test_orders_are_compared_between_data_sets_and_with_the_search_on_its_own_alone(store: Store) -> None:
    transfer = measure(choose_elites(store.candidates(), store.cycles()), ["mnist", "svhn"])
    compared = {(one.first, one.second): one.correlation for one in transfer.compare()}
    assert set(compared) == {(SEARCH, "digits"), ("digits", "mnist"), ("digits", "svhn"), ("mnist", "svhn")}
    again, reversed_order = compared[SEARCH, "digits"].spearman, compared["digits", "mnist"].spearman
    assert again is not None
    assert reversed_order is not None
    assert again.estimate == pytest.approx(1)
    assert reversed_order.estimate == pytest.approx(-1)


def test_ranks_leave_failures_out_and_the_failures_are_counted(store: Store) -> None:
    transfer = measure(choose_elites(store.candidates(), store.cycles()), ["mnist"], failing=2, seeds=2)
    count = len(transfer.candidates)
    assert transfer.ranks("digits") == list(range(1, count + 1))
    assert transfer.ranks("mnist") == [None, None, *range(count - 2, 0, -1)]
    assert transfer.outcomes("mnist") == {Outcome.TIMEOUT: 2, Outcome.VALID: count - 2}
    assert transfer.compare()[-1].correlation.count == count - 2


def test_equals_share_the_better_rank(store: Store) -> None:
    first, second, third, *_ = choose_elites(store.candidates(), store.cycles())
    same = [first, replace(second, accuracy=first.accuracy), third]
    assert measure(same, ["mnist"]).ranks(SEARCH) == [1, 1, 3]


def test_shift_is_what_luck_had_added_to_those_chosen(store: Store) -> None:
    transfer = measure(choose_elites(store.candidates(), store.cycles()), ["mnist"])
    shift = transfer.shift(transfer.targets[0])
    assert shift is not None
    mean = sum(row.accuracy**2 - row.accuracy for row in transfer.candidates if row.accuracy) / len(transfer.candidates)
    assert shift.estimate == pytest.approx(mean)
    assert shift.low < shift.estimate < shift.high
    assert transfer.shift(transfer.targets[1]) is None
    assert replace(transfer, protocol="another").shift(transfer.targets[0]) is None


def test_everything_is_in_the_json_also_what_is_not_measured_yet(store: Store) -> None:
    transfer = measure(choose_elites(store.candidates(), store.cycles()), ["mnist"], failing=1)
    values = json.loads(json.dumps(transfer.as_values()))
    assert len(values["candidates"]) == len(transfer.candidates)
    assert values["candidates"][0]["mnist"]["outcome"] == "timeout"
    assert values["candidates"][1]["mnist"]["rank"] is not None
    assert [one["name"] for one in values["data_sets"]] == ["digits", "mnist"]
    assert {one["candidates"] for one in values["correlations"]} == {
        len(transfer.candidates),
        len(transfer.candidates) - 1,
    }
    nothing = replace(transfer, scores=read_scores([], [row.id for row in transfer.candidates], transfer.targets))
    assert json.loads(json.dumps(nothing.as_values()))["candidates"][0]["mnist"]["outcome"] is None
