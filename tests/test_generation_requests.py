"""What a cycle asks for: whole programs and edits, the same ones whenever it is asked again."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from nas_ray import seed_model
from nas_ray.config import RunConfig
from nas_ray.datasets import Dataset, load_dataset
from nas_ray.deltas import WANTED
from nas_ray.generation_requests import RequestWriter
from nas_ray.outcome import Outcome, Stage
from nas_ray.schema import CandidateRow

COUNT = 20


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(RunConfig().dataset)


def writer(dataset: Dataset, generation: dict[str, object], delta: dict[str, object] | None = None) -> RequestWriter:
    values = {"candidates_per_cycle": COUNT, "generation": generation, "delta": delta or {}}
    return RequestWriter(RunConfig.model_validate(values), dataset, AutoTokenizer.from_pretrained(seed_model.folder()))


def archived(number: int, code: str = "") -> CandidateRow:
    return CandidateRow(
        run="r",
        cycle=0,
        index=number,
        id=f"{number:016x}",
        outcome=Outcome.VALID,
        stage=Stage.TRAIN,
        novel=True,
        code=code or f"class Net{number}:\n    pass\n",
        accuracy=number / 10,
        parameters=100 * number,
        depth=number,
    )


ARCHIVE = [archived(number) for number in range(1, 6)]


@pytest.mark.parametrize(
    ("full", "delta", "edits"), [(1, 0, 0), (0, 1, 20), (0.5, 0.5, 10), (3, 1, 5), (0.45, 0.55, 11)]
)
def test_exactly_the_configured_share_is_edits(digits: Dataset, full: float, delta: float, edits: int) -> None:
    requests = writer(digits, {"full": full, "delta": delta}).write(1, (), ARCHIVE)
    assert [request.index for request in requests] == list(range(COUNT))
    assert sum(request.mode == "delta" for request in requests) == edits


def test_without_an_archive_whole_programs_are_asked_for(digits: Dataset) -> None:
    requests = writer(digits, {"full": 0, "delta": 1}).write(0, ())
    assert {request.mode for request in requests} == {"full"}
    assert not any(request.parent_code or request.wanted for request in requests)


def test_an_edit_names_its_parent_and_shows_it_with_what_was_measured(digits: Dataset) -> None:
    wanted = list(WANTED)
    for request in writer(digits, {"full": 0, "delta": 1}, {"wanted": wanted}).write(1, (), ARCHIVE):
        (parent,) = [row for row in ARCHIVE if (row.id,) == request.parent_ids]
        assert request.parent_code == parent.code
        assert request.prompt.endswith(
            f"accuracy {parent.index * 10} %, {parent.parameters} parameters; wanted: {WANTED[request.wanted]}\n"
            f"{parent.code}"
        )


def test_asked_again_a_cycle_asks_the_same_and_another_cycle_something_else(digits: Dataset) -> None:
    one = writer(digits, {"full": 0.5, "delta": 0.5})
    assert one.write(1, (), ARCHIVE) == one.write(1, (), list(reversed(ARCHIVE)))
    assert one.write(1, (), ARCHIVE) != one.write(2, (), ARCHIVE)


def test_a_parent_too_long_for_the_context_gives_way_to_a_whole_program(digits: Dataset) -> None:
    long = archived(9, "class Net:\n" + "".join(f"    a{place} = {place}\n" for place in range(500)))
    requests = writer(digits, {"full": 0, "delta": 1}).write(1, (), [long])
    assert {request.mode for request in requests} == {"full"}


def test_edits_do_not_change_what_whole_programs_are_asked_for(digits: Dataset) -> None:
    whole = writer(digits, {}).write(1, (), ARCHIVE)
    mixed = writer(digits, {"full": 0.5, "delta": 0.5}).write(1, (), ARCHIVE)
    assert [request for request in mixed if request.mode == "full"] == whole[::2]
