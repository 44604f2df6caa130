"""What a run needs of its machine: what is missing is named, with the numbers, and nothing is left behind."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from nas_ray.config import RunConfig
from nas_ray.config_file import load_config
from nas_ray.machine import (
    _compare_version,
    check_folder,
    check_gpus,
    check_memory,
    check_packages,
    check_places,
    check_threads,
    free_memory,
)
from nas_ray.store.place import StoreError


def config_of(*changes: str) -> RunConfig:
    return load_config(None, changes)


def test_this_environment_is_the_one_that_is_asked_for() -> None:
    assert [finding.verdict for finding in check_packages()] == ["ok"]


def test_a_wrong_and_a_missing_package_are_named_with_what_is_needed() -> None:
    assert version("torch") in _compare_version(Requirement("torch>=99"))
    assert ">=99" in _compare_version(Requirement("torch>=99"))
    assert "no-such-package>=1" in _compare_version(Requirement("no-such-package>=1"))
    assert _compare_version(Requirement("torch>=2")) == ""


def test_threads_that_spin_are_a_warning_with_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("KMP_BLOCKTIME", raising=False)
    assert [finding.verdict for finding in check_threads()] == ["ok"]
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    (finding,) = check_threads()
    assert finding.verdict == "warning"
    assert "OMP_WAIT_POLICY=ACTIVE" in finding.found


@pytest.mark.parametrize(("parameters", "verdict"), [(1_000, "ok"), (10**15, "problem")])
def test_weights_beyond_the_memory_are_a_problem(parameters: int, verdict: str) -> None:
    config = config_of("budget.memory_gib=0.01")
    assert [finding.verdict for finding in check_memory(config, parameters, 1)] == [verdict]


def test_gpus_that_are_asked_for_and_not_here_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [finding.verdict for finding in check_gpus(RunConfig(), 1_000)] == ["ok"]
    assert [finding.verdict for finding in check_gpus(config_of("model.gpus=1"), 1_000)] == ["warning"]


def test_candidates_that_may_fill_the_memory_are_a_warning() -> None:
    evaluators = free_memory() // (2 << 30) + 2
    (finding,) = check_memory(RunConfig(), 1_000, evaluators)
    assert finding.verdict == "warning"
    assert "budget.memory_gib" in finding.advice


def test_a_folder_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "new" / "runs"):
        (finding,) = check_folder(config_of(f"folder={folder}"), 0)
        assert finding.verdict == "ok"
    assert list(tmp_path.iterdir()) == []
    (finding,) = check_folder(config_of(f"folder={tmp_path}"), 10**15)
    assert finding.verdict == "warning"


def test_a_folder_that_cannot_be_written_is_an_error_that_names_it() -> None:
    with pytest.raises(StoreError, match="/proc"):
        list(check_folder(config_of("folder=/proc/runs"), 0))


def test_what_fits_on_no_single_node_is_a_problem_unless_the_cluster_grows() -> None:
    nodes = {"a": {"CPU": 4.0}, "b": {"CPU": 2.0, "GPU": 1.0}}
    wanted = {"an evaluation": {"CPU": 4.0, "GPU": 0.5}, "the generator": {"CPU": 1.0, "GPU": 1.0}}
    (finding,) = check_places(wanted, nodes, grows=False)
    assert finding.verdict == "problem"
    assert "an evaluation asks for: 4 CPU, 0.5 GPU" in finding.found
    assert [finding.verdict for finding in check_places(wanted, nodes, grows=True)] == ["warning"]
