"""The measures of diversity have their closed forms and stay inside their bounds."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_run import make_row, make_run

from nas_ray.diversity import entropy, jaccard_matrix, measure_diversity, vendi_score
from nas_ray.outcome import Outcome, Stage
from nas_ray.schema import CandidateRow
from nas_ray.shingles import Shingles, jaccard_counts

VALID = (Outcome.VALID, Stage.TRAIN)

shingle_sets = st.lists(
    st.sets(st.integers(0, 12), max_size=8).map(lambda ones: np.array(sorted(ones), dtype=np.uint32)),
    min_size=1,
    max_size=8,
)


def valid(index: int, **values: object) -> CandidateRow:
    return replace(make_row(0, index, VALID, random.Random(index)), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_the_vendi_score_of_alike_things_is_one_and_of_disjoint_ones_their_number(count: int) -> None:
    assert vendi_score(np.ones((count, count))) == pytest.approx(1)
    assert vendi_score(np.eye(count)) == pytest.approx(count)


def test_the_vendi_score_of_groups_of_copies_is_the_number_of_groups() -> None:
    groups = np.kron(np.eye(3), np.ones((5, 5)))
    assert vendi_score(groups) == pytest.approx(3)


@pytest.mark.parametrize("similarity", [0.0, 0.3, 0.9, 1.0])
def test_the_vendi_score_of_two_is_that_of_the_eigenvalues_of_their_similarity(similarity: float) -> None:
    shares = [(1 + similarity) / 2, (1 - similarity) / 2]
    expected = math.exp(-sum(share * math.log(share) for share in shares if share))
    assert vendi_score(np.array([[1.0, similarity], [similarity, 1.0]])) == pytest.approx(expected)


@settings(deadline=None)
@given(shingle_sets)
def test_the_vendi_score_is_between_one_and_the_number_of_different_sets(sets: list[Shingles]) -> None:
    score = vendi_score(jaccard_matrix(sets))
    distinct = len({tuple(one) for one in sets})
    assert 1 - 1e-9 <= score <= distinct + 1e-9
    assert score == pytest.approx(vendi_score(jaccard_matrix(sets[::-1])))


@settings(deadline=None)
@given(shingle_sets)
def test_jaccard_matrix_has_the_exact_similarities_and_no_negative_eigenvalue(sets: list[Shingles]) -> None:
    matrix = jaccard_matrix(sets)
    for one in range(len(sets)):
        for other in range(len(sets)):
            shared, union = jaccard_counts(sets[one], sets[other])
            assert matrix[one, other] == (shared / union if union else 1.0)
    assert np.linalg.eigvalsh(matrix).min() > -1e-9


def test_nothing_has_no_diversity() -> None:
    assert math.isnan(vendi_score(jaccard_matrix([])))
    assert math.isnan(entropy([]))


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_entropy_is_between_zero_and_the_logarithm_of_the_number_of_labels(labels: list[int]) -> None:
    assert -1e-12 <= entropy(labels) <= math.log(len(set(labels))) + 1e-12
    assert entropy(labels * 3) == pytest.approx(entropy(labels), abs=1e-12)


def test_entropy_of_equal_shares_is_the_logarithm_of_their_number() -> None:
    assert entropy("aabbccdd") == pytest.approx(math.log(4))
    assert entropy("aaaa") == 0


def test_a_cycle_is_measured_on_every_program_that_was_written_in_it(tmp_path: Path) -> None:
    rows = make_run(tmp_path / "run", cycles=2).candidates()
    own = [row for row in rows if row.cycle == 1]
    found = measure_diversity(rows, 1, shingle_tokens=10)
    assert found.candidates == len(own)
    assert found.programs == sum(bool(row.id) for row in own)
    assert found.duplicates == sum(row.outcome is Outcome.DUPLICATE for row in own)
    assert 1 <= found.vendi <= found.programs
    assert measure_diversity(own, 1, shingle_tokens=10) == found


def test_copies_count_as_one_program_and_have_the_graph_of_the_first(tmp_path: Path) -> None:
    first = valid(0, id="aa", graph="g1", parameters=100, depth=1)
    other = valid(1, id="bb", graph="g2", parameters=9000, depth=2)
    copies = [
        replace(first, index=index, outcome=Outcome.DUPLICATE, stage=Stage.NOVELTY, graph="", parameters=None)
        for index in (2, 3, 4)
    ]
    found = measure_diversity([first, other, *copies], 0, shingle_tokens=10)
    assert (found.programs, found.distinct, found.duplicates, found.graphs) == (5, 2, 3, 2)
    shares = [4 / 5, 1 / 5]
    assert found.graph_entropy == pytest.approx(-sum(share * math.log(share) for share in shares))
    assert found.cell_entropy == pytest.approx(found.graph_entropy)


def test_one_program_written_over_and_over_has_a_vendi_score_of_one() -> None:
    row = valid(0, graph="g", depth=1)
    found = measure_diversity([replace(row, index=index) for index in range(6)], 0, shingle_tokens=10)
    assert found.vendi == pytest.approx(1)
    assert found.graph_entropy == found.cell_entropy == 0


def test_a_cycle_without_programs_has_no_numbers() -> None:
    found = measure_diversity([valid(0, id="", code="")], 0, shingle_tokens=10)
    assert (found.candidates, found.programs, found.distinct) == (1, 0, 0)
    assert math.isnan(found.vendi)
