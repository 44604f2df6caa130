"""The index on a cluster: the same answers as in the process, and the same answers after its actor was killed."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from nas_ray.candidate import Program
from nas_ray.config import NoveltyConfig
from nas_ray.corpus import CorpusError
from nas_ray.grammar import sample_program
from nas_ray.novelty import NoveltyIndex
from nas_ray.outcome import Outcome, Stage
from nas_ray.program import parse_completion
from nas_ray.schema import CandidateRow

pytestmark = pytest.mark.usefixtures("ray_session")


def sample_programs(count: int, seed: int = 0) -> list[Program]:
    rng = random.Random(seed)
    programs = []
    while len(programs) < count:
        parsed = parse_completion(sample_program(rng, (1, 8, 8), 10, 500_000, mistakes=0.0))
        assert isinstance(parsed, Program)
        programs.append(parsed)
    return programs


def final_row(program: Program, arrival: int, graph: str = "") -> CandidateRow:
    return CandidateRow(
        run="test",
        cycle=0,
        index=arrival,
        arrival=arrival,
        outcome=Outcome.VALID,
        stage=Stage.TRAIN,
        id=program.id,
        code=program.code,
        novel=True,
        graph=graph,
    )


def kill_actor(handle: object) -> None:
    import ray

    ray.kill(handle._actor)  # type: ignore[attr-defined]


def test_actor_and_plain_index_agree() -> None:
    from actors.novelty_index import NoveltyIndexHandle

    programs = sample_programs(20)
    programs += programs[:5]
    handle, plain = NoveltyIndexHandle(NoveltyConfig(), list), NoveltyIndex(NoveltyConfig())
    assert [handle.admit_code(program) for program in programs] == [plain.admit_code(program) for program in programs]
    assert handle.size() == len(plain)
    handle.close()


def test_killed_index_remembers_finished_and_unfinished_candidates() -> None:
    from actors.novelty_index import NoveltyIndexHandle

    finished, unfinished, withdrawn, unseen = sample_programs(4)
    rows: list[CandidateRow] = []
    handle = NoveltyIndexHandle(NoveltyConfig(), lambda: rows)
    for program in (finished, unfinished, withdrawn):
        assert handle.admit_code(program).novel
    assert handle.admit_graph(finished.id, "a" * 16).novel
    assert handle.admit_graph(unfinished.id, "b" * 16).novel
    assert handle.withdraw(withdrawn.id)
    rows.append(final_row(finished, 0, "a" * 16))
    kill_actor(handle)
    assert handle.admit_code(finished).view == "id"
    assert handle.admit_code(unfinished).view == "id"
    kill_actor(handle)
    assert handle.admit_code(withdrawn).novel
    assert handle.admit_code(unseen).novel
    assert handle.admit_graph(unseen.id, "a" * 16).neighbour == finished.id
    assert handle.admit_graph(withdrawn.id, "b" * 16).neighbour == unfinished.id
    handle.close()


def test_resumed_run_has_seen_what_its_rows_say() -> None:
    from actors.novelty_index import NoveltyIndexHandle

    novel, twin, lost, refused = sample_programs(4, seed=1)
    rows = [
        final_row(novel, 0, "a" * 16),
        replace(final_row(twin, 1, "a" * 16), novel=False, duplicate_view="graph", outcome=Outcome.DUPLICATE),
        replace(final_row(lost, 2), outcome=Outcome.SANDBOX_ERROR),
        replace(final_row(refused, 3), novel=False, outcome=Outcome.FORBIDDEN),
    ]
    handle = NoveltyIndexHandle(NoveltyConfig(), lambda: rows)
    verdicts = [handle.admit_code(program) for program in (novel, twin, lost, refused)]
    assert [verdict.novel for verdict in verdicts] == [False, False, True, True]
    assert handle.admit_graph(lost.id, "a" * 16).neighbour == novel.id
    handle.close()


def test_corpus_counts_as_seen_also_after_a_kill(tmp_path: Path) -> None:
    from actors.novelty_index import NoveltyIndexHandle

    known, fresh = sample_programs(2)
    (tmp_path / "known.py").write_text(known.code)
    (tmp_path / "broken.py").write_text("class Net(")
    handle = NoveltyIndexHandle(NoveltyConfig(corpus=str(tmp_path)), list)
    assert handle.size() == 1
    assert not handle.admit_code(known).novel
    assert handle.admit_code(fresh).novel
    kill_actor(handle)
    assert not handle.admit_code(known).novel
    handle.close()


def test_missing_corpus_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    from actors.novelty_index import NoveltyIndexHandle

    with pytest.raises(CorpusError, match="is not a folder; give a folder"):
        NoveltyIndexHandle(NoveltyConfig(corpus=str(tmp_path / "nowhere")), list)


def test_memory_of_unfinished_candidates_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    from actors import novelty_index

    monkeypatch.setattr(novelty_index, "UNFINISHED", 8)
    programs = sample_programs(40, seed=2)
    rows: list[CandidateRow] = []
    handle = novelty_index.NoveltyIndexHandle(NoveltyConfig(), lambda: rows)
    for arrival, program in enumerate(programs):
        if handle.admit_code(program).novel:
            rows.append(final_row(program, arrival))
        assert len(handle._unfinished) <= 9
    kill_actor(handle)
    assert handle.size() == len(rows)
    handle.close()
