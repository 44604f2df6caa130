from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from lemur_tree import lemur_program, networks, put_program, put_trials, trial
from sample_run import make_row, make_run
from transformers import AutoTokenizer

from nas_ray.config import NoveltyConfig, RunConfig
from nas_ray.config_file import ConfigError, parse_config
from nas_ray.corpus import CorpusError, best_exemplars, read_corpus
from nas_ray.corpus_comparison import compare_with_corpus, describe_corpus
from nas_ray.datasets import load_dataset
from nas_ray.generation_requests import RequestWriter
from nas_ray.lemur.importing import Choice, import_lemur
from nas_ray.lemur.tree import find_tree
from nas_ray.model_folder import resolve_model
from nas_ray.novelty import NoveltyIndex
from nas_ray.outcome import Outcome, Stage
from nas_ray.program import Program, read_program
from nas_ray.replay import CORPUS_CYCLE, choose_pairs
from nas_ray.schema import CandidateRow
from nas_ray.sketches import Sketcher
from nas_ray.store import Store

FOLDER = "img-classification_mnist_acc_"


def program_of(code: str) -> Program:
    program = read_program(code)
    assert isinstance(program, Program)
    return program


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six imported programs, the later the better on mnist; one more without measurements."""
    root, out = tmp_path_factory.mktemp("lemur"), tmp_path_factory.mktemp("corpus")
    for number, code in enumerate(networks(7)):
        put_program(root, f"ga-{number}", lemur_program(code))
        if number < 6:
            put_trials(root, f"{FOLDER}ga-{number}", "1", [trial(0.1 * number), trial(0.05)])
            put_trials(root, f"{FOLDER}ga-{number}", "9", [trial(0.9)])
    import_lemur(find_tree(str(root)), out, Choice(), Sketcher(10, 256), workers=1)
    return str(out)


def test_networks_of_a_corpus_are_seen_with_and_without_their_training_code(corpus: str) -> None:
    config = NoveltyConfig(corpus=corpus)
    index = NoveltyIndex(config)
    index.seed(read_corpus(config))
    for network in networks(7):
        assert index.admit_code(program_of(network)).similarity == 1.0
        assert index.admit_code(program_of(lemur_program(network))).similarity == 1.0
    assert index.admit_code(program_of(networks(8)[-1])).novel


def test_a_folder_of_files_and_its_import_are_the_same_corpus(corpus: str, tmp_path: Path) -> None:
    for number, network in enumerate(networks(7)):
        (tmp_path / f"ga-{number}.py").write_text(lemur_program(network))
    files, imported = read_corpus(NoveltyConfig(corpus=str(tmp_path))), read_corpus(NoveltyConfig(corpus=corpus))
    assert files.ids == imported.ids
    assert files.shingles.tolist() == imported.shingles.tolist()
    assert files.signatures.tolist() == imported.signatures.tolist()


def test_exemplars_are_the_best_within_the_epochs_of_the_run(corpus: str) -> None:
    best = best_exemplars(NoveltyConfig(corpus=corpus), "mnist", epochs=1)
    assert [one.accuracy for one in best] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1, 0.05])
    assert best[0].id == program_of(networks(6)[-1]).id


def test_a_corpus_that_cannot_be_ranked_is_an_error_that_says_what_to_do(corpus: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no measurement on digits within 1 epochs; it has some on mnist"):
        best_exemplars(NoveltyConfig(corpus=corpus), "digits", epochs=1)
    (tmp_path / "one.py").write_text(networks(1)[0])
    with pytest.raises(CorpusError, match=r"a folder of \.py files, which has no measurements"):
        best_exemplars(NoveltyConfig(corpus=str(tmp_path)), "digits", epochs=1)
    with pytest.raises(ConfigError, match="say where it is in corpus"):
        parse_config({"novelty": {"corpus_pairs": 1}}, "test")


def writer_of(corpus: str, context_tokens: int = 2048, parents: str = "cells") -> RequestWriter:
    novelty = NoveltyConfig(corpus=corpus, corpus_measured_on="mnist", corpus_examples=2, corpus_pairs=3)
    config = RunConfig(novelty=novelty)
    template = Path(corpus) / "template.txt"
    template.write_text("${dataset}: ${classes} classes\n${examples}\n")
    config = config.model_copy(
        update={
            "generation": config.generation.model_copy(update={"template": str(template), "examples": 1, "delta": 1.0}),
            "model": config.model.model_copy(update={"context_tokens": context_tokens}),
            "delta": config.delta.model_copy(update={"parents": parents}),
        }
    )
    return RequestWriter(config, load_dataset(config.dataset), AutoTokenizer.from_pretrained(resolve_model("seed")))


def test_the_best_of_the_corpus_are_shown_edited_and_taught(corpus: str) -> None:
    writer = writer_of(corpus)
    best = [program_of(network).id for network in reversed(networks(6))]
    assert [pair.id for pair in writer.corpus_pairs] == best[:3]
    assert {pair.cycle for pair in writer.corpus_pairs} == {CORPUS_CYCLE}
    requests = writer.write(0, elites=())
    assert {request.parent_ids[0] for request in requests} <= set(best[:2])
    assert {request.mode for request in requests} == {"full", "delta"}
    assert all(request.parent_code for request in requests if request.mode == "delta")
    whole = next(request for request in requests if request.mode == "full")
    assert writer.corpus_pairs[0].prompt.splitlines()[0] == whole.prompt.splitlines()[0]


@pytest.mark.parametrize("parents", ["cells", "rank", "tournament"])
def test_the_corpus_gives_parents_alike_until_the_run_has_its_own(corpus: str, parents: str) -> None:
    writer = writer_of(corpus, parents=parents)
    best = {program_of(network).id for network in networks(6)[-2:]}

    def parents_of(cycle: int, archive: Sequence[CandidateRow]) -> list[str]:
        requests = writer.write(cycle, (), archive)
        return [request.parent_ids[0] for request in requests if request.mode == "delta"]

    first = parents_of(0, ())
    assert set(first) == best
    assert all(first.count(one) >= len(first) / 4 for one in best)
    assert first == parents_of(0, ())
    assert first != parents_of(1, ())
    poor = make_row(0, 0, (Outcome.VALID, Stage.TRAIN), random.Random(0))  # worse than the whole corpus, yet its own
    assert set(parents_of(1, [replace(poor, accuracy=0.01)])) == {poor.id}


def test_programs_too_long_for_the_model_are_neither_shown_nor_taught(corpus: str) -> None:
    with pytest.raises(CorpusError, match=r"none of the 6 measured programs .* raise model\.context_tokens"):
        writer_of(corpus, context_tokens=350)


@pytest.mark.parametrize(("replay", "taught"), [("all", [0, 1, 5]), ("last", [0, 1])])
def test_pairs_of_the_corpus_are_replayed_as_a_cycle_before_the_first(
    corpus: str, replay: str, taught: list[int]
) -> None:
    writer = writer_of(corpus)
    config = RunConfig().finetune.model_copy(update={"replay": replay, "replay_last": 3, "held_out": 0.0})
    cycles = [cycle for cycle in (0, 1, 5) if choose_pairs(writer.corpus_pairs, config, cycle, seed=0).training]
    assert cycles == taught


def test_elites_absent_from_the_corpus_are_counted_exactly(corpus: str, tmp_path: Path) -> None:
    """One elite is in the corpus, one comes near it, the others are new; refused duplicates count."""
    make_run(tmp_path / "run")
    store = Store.open(str(tmp_path / "run"))
    assert describe_corpus(store) == ""
    store.config = store.config.model_copy(update={"novelty": NoveltyConfig(corpus=corpus)})
    rows = store.candidates()
    elite_ids = [one for cycle in store.cycles() for one in cycle.elite_ids]
    known = program_of(networks(1)[0])
    changed = {elite_ids[0]: known.code}
    duplicates = [row for row in rows if row.outcome is Outcome.DUPLICATE]
    named = [replace(row, duplicate_of=known.id) if row is duplicates[0] else row for row in rows]
    store.candidates = lambda cycle=None: [  # type: ignore[method-assign]
        replace(row, code=changed.get(row.id, row.code)) for row in named
    ]
    comparison = compare_with_corpus(store)
    assert comparison is not None
    assert comparison.refused == 1
    assert comparison.elites == len(elite_ids)
    assert comparison.absent == len(elite_ids) - 1
    assert (comparison.nearest_id, comparison.nearest_similarity) == (elite_ids[0], 1.0)
    assert f"{len(elite_ids) - 1} of {len(elite_ids)} elites are absent from it" in describe_corpus(store)
    store.config = store.config.model_copy(update={"novelty": NoveltyConfig(corpus="gone")})
    assert "cannot be compared with the seed corpus any more" in describe_corpus(store)
