"""A run folder as a search leaves it, made in a moment from a seed, for the tests of everything that reads one.

The store, its rows and the programs are real; the accuracies are drawn at random instead of trained.
"""

from __future__ import annotations

import random
from pathlib import Path

from nas_ray.candidate import Completion
from nas_ray.config import RunConfig, SelectionConfig
from nas_ray.funnel import count_funnel
from nas_ray.outcome import Outcome, Stage
from nas_ray.schema import CandidateRow, CycleRow, EvaluationRow
from nas_ray.selection import select
from nas_ray.store import Store

ENDINGS = (
    (Outcome.NO_CODE, Stage.PARSE),
    (Outcome.SYNTAX_ERROR, Stage.PARSE),
    (Outcome.CONTRACT_ERROR, Stage.CONTRACT),
    (Outcome.DUPLICATE, Stage.NOVELTY),
    (Outcome.SHAPE_ERROR, Stage.BUILD),
    (Outcome.DUPLICATE, Stage.GRAPH),
    (Outcome.TIMEOUT, Stage.TRAIN),
    *[(Outcome.VALID, Stage.TRAIN)] * 6,
)
PROGRAM = """import torch
import torch.nn as nn


class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(in_shape[1], {width}, 3, padding=1), nn.BatchNorm2d({width}), nn.ReLU())
        self.head = nn.Linear({width}, out_shape[0])

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))
"""


def make_row(cycle: int, index: int, ending: tuple[Outcome, Stage], dice: random.Random) -> CandidateRow:
    """A final row with that ending, without what a candidate cannot have at that stage."""
    outcome, stage = ending
    late = stage in (Stage.GRAPH, Stage.TRAIN)
    return CandidateRow(
        run="sample",
        cycle=cycle,
        index=index,
        arrival=1000 * cycle + index,
        id="" if stage is Stage.PARSE else f"{dice.getrandbits(64):016x}",
        prompt="# 1x8x8 -> 10 classes",
        code=PROGRAM.format(width=4 + 4 * dice.randrange(8)),
        outcome=outcome,
        stage=stage,
        detail="" if outcome is Outcome.VALID else f"why it was {outcome}",
        error_type="RuntimeError" if outcome is Outcome.SHAPE_ERROR else "",
        engine="vllm",
        adapter=cycle,
        completion_tokens=100 + index,
        finish_reason="stop",
        seconds=1.5,
        novel=stage is Stage.TRAIN,
        duplicate_of="0123456789abcdef" if outcome is Outcome.DUPLICATE else "",
        similarity=0.95 if outcome is Outcome.DUPLICATE else 0.1,
        parameters=dice.randrange(1_000, 500_000) if late else None,
        flops=dice.randrange(10_000, 900_000) if late else None,
        accuracy=dice.uniform(0.3, 0.99) if outcome is Outcome.VALID else None,
        loss=dice.uniform(0.1, 2.0) if outcome is Outcome.VALID else None,
    )


def add_candidate(store: Store, row: CandidateRow) -> None:
    """Append a row with its completion and, where it was trained, its evaluation, in the driver's order."""
    text = f"```python\n{row.code}```"
    written = (row.index, row.prompt, row.seed, text, row.completion_tokens, 20, 0.5, "stop", "vllm", row.adapter)
    store.append_completion(Completion(row.cycle, *written), row.arrival)
    if row.stage is Stage.TRAIN:
        store.append_evaluation(
            EvaluationRow(
                id=row.id,
                cycle=row.cycle,
                index=row.index,
                dataset=store.config.dataset.name,
                protocol=store.config.protocol.digest,
                seed=store.config.protocol.seed,
                epochs=store.config.protocol.epochs,
                accuracy=row.accuracy,
                loss=row.loss,
                outcome=row.outcome,
                detail=row.detail,
            )
        )
    store.append_candidate(row)


def close_cycle(store: Store, cycle: int) -> None:
    """Select the elites of a cycle and close it."""
    rows = store.candidates(cycle)
    chosen = select(rows, SelectionConfig(), cycle)
    elite_ids = tuple(row.id for row in chosen.elites)
    funnel = count_funnel(rows, elite_ids)
    store.append_cycle(
        CycleRow(
            cycle=cycle,
            **dict(funnel.steps),  # type: ignore[arg-type]
            elite_ids=elite_ids,
            training_ids=elite_ids,
            adapter=cycle + 1,
            generate_seconds=10.0,
            check_seconds=2.0,
            evaluate_seconds=30.0,
            finetune_seconds=15.0,
            waiting_seconds=3.0,
            total_seconds=60.0,
        )
    )
    store.compact(cycle)


def make_run(folder: Path, cycles: int = 3, candidates: int = 26, seed: int = 0, unfinished: int = 0) -> Store:
    """A run of `cycles` closed cycles; with `unfinished`, so many candidates of one more cycle that is still open."""
    dice = random.Random(seed)
    config = RunConfig(name="sample", cycles=max(cycles + bool(unfinished), 1), candidates_per_cycle=candidates)
    store = Store.create(folder, config)
    for cycle in range(cycles + bool(unfinished)):
        for index in range(candidates if cycle < cycles else unfinished):
            add_candidate(store, make_row(cycle, index, ENDINGS[index % len(ENDINGS)], dice))
        if cycle < cycles:
            close_cycle(store, cycle)
    store.close()
    return store
