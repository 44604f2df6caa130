"""Novelty: bands that miss as rarely as they say, similarities that are exact, verdicts that repeat."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_ray.bands import BandTable, choose_bands
from nas_ray.candidate import Program, Verdict
from nas_ray.config import NoveltyConfig
from nas_ray.novelty import NoveltyIndex, Record
from nas_ray.shingles import jaccard_counts, shingle
from nas_ray.sketches import Sketcher, Sketches

WORDS = [f"w{number}" for number in range(50)]


def program_of(words: Sequence[str]) -> Program:
    text = " ".join(words)
    return Program(id=hashlib.sha256(text.encode()).hexdigest()[:16], code="", normalised=text, dropped=())


def sample_words(count: int, seed: int = 0) -> list[str]:
    return random.Random(seed).choices(WORDS, k=count)


def edit(words: Sequence[str], edits: int, rng: random.Random) -> list[str]:
    edited = list(words)
    for _ in range(edits):
        edited[rng.randrange(len(edited))] = rng.choice(WORDS)
    return edited


def exact_similarity(one: Program, other: Program, tokens: int = 10) -> float:
    """By sets of tuples of words: no hashes, no arrays."""

    def runs(program: Program) -> set[tuple[str, ...]]:
        words = program.normalised.split()
        width = min(tokens, len(words))
        return {tuple(words[start : start + width]) for start in range(len(words) - width + 1)}

    return len(runs(one) & runs(other)) / len(runs(one) | runs(other))


# bands and rows of the theory's reference vectors (R5, lsh_choose_fn), and the miss rate that it gives
@pytest.mark.parametrize(
    ("tau", "permutations", "miss_rate", "bands", "rows", "missed"),
    [
        (0.9, 256, 0.01, 18, 14, 0.00931818875359),
        (0.7, 128, 0.01, 32, 4, 0.000152829159379),
        (0.85, 100, 0.05, 12, 8, 0.0219818300819),
    ],
)
def test_bands_are_those_of_the_theory(
    tau: float, permutations: int, miss_rate: float, bands: int, rows: int, missed: float
) -> None:
    assert choose_bands(permutations, tau, miss_rate) == (bands, rows)
    assert (1 - tau**rows) ** bands == pytest.approx(missed, rel=1e-6)


@given(st.integers(64, 512), st.floats(0.3, 0.99), st.floats(0.001, 0.5))
def test_bands_fit_and_keep_the_miss_rate(permutations: int, tau: float, miss_rate: float) -> None:
    bands, rows = choose_bands(permutations, tau, miss_rate)
    assert bands * rows <= permutations
    assert (1 - tau**rows) ** bands <= miss_rate


def test_impossible_miss_rate_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"16 permutations miss 18\.53% .* raise novelty\.permutations"):
        NoveltyIndex(NoveltyConfig(permutations=16, tau=0.1))


def test_signatures_estimate_similarity_without_bias() -> None:
    """Multipliers that do not span their field gave 0.875 for pairs at 0.5."""
    sketcher = Sketcher(10, 256)
    random_numbers = np.random.default_rng(0)
    agreement = []
    for _ in range(60):
        numbers = random_numbers.choice(2**32, 300, replace=False).astype(np.uint32)
        one, other = sketcher.sign(np.sort(numbers[:200])), sketcher.sign(np.sort(numbers[100:]))
        agreement.append(float(np.mean(one == other)))
    mean, error = np.mean(agreement), np.std(agreement) / np.sqrt(len(agreement))
    assert abs(mean - 1 / 3) < 4 * error
    assert np.std(agreement) == pytest.approx(np.sqrt(1 / 3 * 2 / 3 / 256), rel=0.4)


def test_bands_find_pairs_as_often_as_the_formula_says() -> None:
    """lsh_curve: a pair at similarity J shares a band with probability 1 - (1 - J^r)^b."""
    sketcher = Sketcher(10, 256)
    random_numbers = np.random.default_rng(1)
    found = 0
    for _ in range(300):
        numbers = random_numbers.choice(2**32, 230, replace=False).astype(np.uint32)
        keys = [set(BandTable(18, 14).keys(sketcher.sign(part))) for part in (numbers[:210], numbers[30:])]
        found += bool(keys[0] & keys[1])
    similarity = 160 / 230 + 20 / 230  # 180 of 230 are shared
    expected = 1 - (1 - similarity**14) ** 18
    assert found / 300 == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 300))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 80), st.integers(1, 80), st.integers(1, 12))
def test_similarity_on_hashes_is_that_on_words(seed: int, one: int, other: int, tokens: int) -> None:
    rng = random.Random(seed)
    first = rng.choices(WORDS[:3], k=one)
    second = (first + rng.choices(WORDS[:3], k=other))[:other]
    shared, union = jaccard_counts(shingle(" ".join(first), tokens), shingle(" ".join(second), tokens))
    assert shared / union == exact_similarity(program_of(first), program_of(second), tokens)


def test_short_program_is_one_shingle() -> None:
    assert len(shingle("a b c", 10)) == 1
    assert len(shingle("", 10)) == 0
    index = NoveltyIndex(NoveltyConfig())
    assert index.admit_code(program_of(["a", "b"])).novel
    assert index.admit_code(program_of(["a", "c"])).novel
    assert index.admit_code(program_of([])).novel
    assert not index.admit_code(program_of(["a", "b"])).novel


def test_verdict_names_the_nearest_program_and_its_exact_similarity() -> None:
    rng = random.Random(0)
    base = sample_words(300)
    index = NoveltyIndex(NoveltyConfig())
    others = [program_of(sample_words(300, seed)) for seed in range(1, 20)]
    near, nearer = program_of(edit(base, 3, rng)), program_of(base)
    for program in (*others, near, nearer):
        assert index.admit_code(program).novel
    query = program_of(edit(base, 1, rng))
    assert index.admit_code(query) == Verdict(False, nearer.id, exact_similarity(query, nearer), "code")
    assert exact_similarity(query, nearer) > exact_similarity(query, near)


def test_similarity_of_exactly_tau_is_a_duplicate() -> None:
    """9 of 10 shingles shared: in floating point 0.9 * 10 might fall on either side."""
    index = NoveltyIndex(NoveltyConfig(shingle_tokens=1))
    index.admit_code(program_of(WORDS[:9]))
    verdict = index.admit_code(program_of(WORDS[:10]))
    assert (verdict.novel, verdict.similarity) == (False, 0.9)
    assert index.admit_code(program_of(WORDS[1:9])).novel  # 8 of 9


def test_same_id_is_a_duplicate_of_itself() -> None:
    index = NoveltyIndex(NoveltyConfig())
    program = program_of(sample_words(100))
    assert index.admit_code(program).novel
    assert index.admit_code(program) == Verdict(False, program.id, 1.0, "id")
    assert len(index) == 1


def test_tau_of_one_refuses_exact_duplicates_only() -> None:
    index = NoveltyIndex(NoveltyConfig(tau=1.0))
    base = sample_words(300)
    assert index.admit_code(program_of(base)).novel
    assert index.admit_code(program_of([*base[:-1], "other"])).novel
    assert not index.admit_code(program_of(base)).novel
    assert index.withdraw(program_of(base).id)
    assert index.admit_code(program_of(base)).novel


def test_refused_programs_are_not_admitted() -> None:
    index = NoveltyIndex(NoveltyConfig())
    base = sample_words(300)
    middle, far = [*base[:-1], "a"], [*base[20:-1], "a"]
    index.admit_code(program_of(base))
    assert not index.admit_code(program_of(middle)).novel
    assert index.admit_code(program_of(far)).neighbour in ("", program_of(base).id)


def test_first_program_with_a_graph_holds_it() -> None:
    index = NoveltyIndex(NoveltyConfig())
    one, other = program_of(sample_words(50, 1)), program_of(sample_words(50, 2))
    index.admit_code(one)
    index.admit_code(other)
    assert index.admit_graph(one.id, "ab" * 8).novel
    assert index.admit_graph(one.id, "ab" * 8).novel  # asked again, after a lost answer
    assert index.admit_graph(other.id, "ab" * 8) == Verdict(False, one.id, 1.0, "graph")
    assert not index.admit_code(other).novel  # its code was seen
    with pytest.raises(KeyError, match="was not admitted"):
        index.admit_graph("0" * 16, "cd" * 8)


def test_withdrawn_program_may_come_again() -> None:
    index = NoveltyIndex(NoveltyConfig())
    base = sample_words(300)
    one, near = program_of(base), program_of([*base[:-1], "a"])
    index.admit_code(one)
    index.admit_graph(one.id, "ab" * 8)
    assert index.withdraw(one.id)
    assert not index.withdraw(one.id)
    assert (len(index), one.id in index) == (0, False)
    assert index.admit_code(near) == Verdict(True, "", 0.0, "")
    assert index.admit_graph(near.id, "ab" * 8).novel
    assert not index.admit_code(one).novel


def mixed_programs(seed: int, count: int = 120) -> list[Program]:
    """Families of near and less near relatives, with repetitions."""
    rng = random.Random(seed)
    families = [sample_words(200, seed * 100 + number) for number in range(8)]
    return [program_of(edit(rng.choice(families), rng.choice((0, 1, 1, 2, 5)), rng)) for _ in range(count)]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 120))
def test_restored_index_goes_on_as_if_it_had_not_been_killed(seed: int, cut: int) -> None:
    programs = mixed_programs(seed)
    whole = NoveltyIndex(NoveltyConfig())
    verdicts = [whole.admit_code(program) for program in programs]
    admitted = [program for program, verdict in zip(programs[:cut], verdicts[:cut], strict=True) if verdict.novel]
    restored = NoveltyIndex(NoveltyConfig())
    restored.restore(Record(program.id, program.normalised) for program in admitted)
    restored.restore(Record(program.id, program.normalised) for program in admitted)  # twice does no harm
    assert [restored.admit_code(program) for program in programs[cut:]] == verdicts[cut:]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_novel_means_below_tau_to_all_but_what_the_bands_missed(seed: int) -> None:
    index = NoveltyIndex(NoveltyConfig(miss_rate=1e-6))  # so that none is missed here
    admitted: list[Program] = []
    for program in mixed_programs(seed, 40):
        nearest = max((exact_similarity(program, other) for other in admitted), default=0.0)
        verdict = index.admit_code(program)
        assert verdict.novel == (nearest < 0.9)
        if not verdict.novel:
            assert verdict.similarity == nearest
        else:
            assert verdict.similarity <= nearest
            admitted.append(program)


def test_seeded_corpus_counts_as_seen() -> None:
    index = NoveltyIndex(NoveltyConfig())
    base = sample_words(300)
    programs = [program_of(base), program_of(base)]
    sketcher = Sketcher(index.config.shingle_tokens, index.config.permutations)
    sketches = [sketcher.sketch(program.normalised) for program in programs]
    index.seed(Sketches.of([program.id for program in programs], sketches, index.config.permutations))
    assert len(index) == 1
    assert index.admit_code(program_of([*base[:-1], "a"])).neighbour == program_of(base).id


def test_restored_graphs_stay_with_their_first_holder() -> None:
    index = NoveltyIndex(NoveltyConfig())
    one, other = program_of(sample_words(50, 1)), program_of(sample_words(50, 2))
    index.restore([Record(one.id, one.normalised, "ab" * 8), Record(other.id, other.normalised, "ab" * 8)])
    assert index.admit_graph(other.id, "ab" * 8).neighbour == one.id
    assert index.withdraw(other.id)
    index.admit_code(other)
    assert not index.admit_graph(other.id, "ab" * 8).novel


def test_hashes_are_the_same_in_another_process() -> None:
    text = " ".join(sample_words(30))
    script = f"from nas_ray.shingles import shingle; print(shingle({text!r}, 10).tolist())"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert answer.strip() == str(shingle(text, 10).tolist())
