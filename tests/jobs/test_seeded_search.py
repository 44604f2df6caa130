"""A search that starts from a corpus: it may not write what is there, and learns from the best of it first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from lemur_tree import lemur_program, networks, put_program, put_trials, trial

from nas_ray.corpus import best_exemplars
from nas_ray.funnel import check_accounting
from nas_ray.lemur.importing import Choice, import_lemur
from nas_ray.lemur.tree import find_tree
from nas_ray.sketches import Sketcher
from nas_ray.store import Store


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_seeded_search_is_taught_by_the_corpus_and_says_what_is_absent_from_it(tmp_path: Path) -> None:
    for number, code in enumerate(networks(12)):
        put_program(tmp_path / "tree", f"ga-{number}", lemur_program(code))
        put_trials(tmp_path / "tree", f"img-classification_mnist_acc_ga-{number}", "1", [trial(0.05 * number)])
    import_lemur(find_tree(str(tmp_path / "tree")), tmp_path / "corpus", Choice(), Sketcher(10, 256), workers=1)
    settings = (
        f"folder={tmp_path}", "cycles=1", "candidates_per_cycle=8", "model.engine=transformers", "finetune.epochs=1",
        f"novelty.corpus={tmp_path / 'corpus'}", "novelty.corpus_measured_on=mnist", "novelty.corpus_pairs=4",
    )  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-m", "jobs.search", "--run", "run", *(f"--set={setting}" for setting in settings)],
        text=True, capture_output=True, timeout=550, env={**os.environ, "PYTHONPATH": str(Path.cwd())}, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    store = Store.open(tmp_path / "run")
    assert check_accounting(store) == []
    (cycle,) = store.cycles()
    best = {one.id for one in best_exemplars(store.config.novelty, "digits", 1)[:4]}
    assert best <= {*cycle.training_ids, *cycle.held_out_ids}
    assert f"of {len(cycle.elite_ids)} elites are absent from it" in " ".join(ended.stdout.split())
    assert "elites are absent from it" in (tmp_path / "run" / "report.html").read_text()
