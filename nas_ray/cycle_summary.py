"""The one row that closes a cycle.

In: the cycle's final rows, what was selected and taught, and where the time went. Out: a `CycleRow`.
"""

from __future__ import annotations

from collections.abc import Sequence

from nas_ray.finetune_report import FinetuneReport
from nas_ray.funnel import count_funnel
from nas_ray.schema import CandidateRow, CycleRow
from nas_ray.selection import Selection
from nas_ray.stopwatch import Stopwatch


def summarise_cycle(
    cycle: int,
    rows: Sequence[CandidateRow],
    selection: Selection[CandidateRow],
    report: FinetuneReport,
    adapter: int,
    watch: Stopwatch,
    tokens_watched: int,
) -> CycleRow:
    """`adapter` is the version that goes on after the cycle: the new one, or the old where none was made.

    Counts are the whole cycle's. Seconds and speed are those of the process that closes it, which saw `tokens_watched`
    of the tokens come in: where the cycle was interrupted, nobody knows what the process before it spent.
    """
    elite_ids = tuple(row.id for row in selection.elites)
    top_up_ids = tuple(row.id for row in selection.top_ups)
    funnel = count_funnel(rows, elite_ids, top_up_ids)
    writing = watch.seconds("generate")
    return CycleRow(
        cycle=cycle,
        generated=funnel.generated,
        parsed=funnel.parsed,
        contract=funnel.contract,
        built=funnel.built,
        novel=funnel.novel,
        trained=funnel.trained,
        elite=funnel.elite,
        top_up=funnel.top_up,
        generate_seconds=writing,
        check_seconds=watch.seconds("check"),
        evaluate_seconds=watch.seconds("evaluate"),
        finetune_seconds=watch.seconds("finetune"),
        waiting_seconds=watch.waiting,
        total_seconds=watch.total,
        elite_ids=elite_ids,
        top_up_ids=top_up_ids,
        training_ids=report.training_ids,
        held_out_ids=report.held_out_ids,
        adapter=adapter,
        nll_before_train=report.nll_before_train,
        nll_after_train=report.nll_after_train,
        nll_before_held_out=report.nll_before_held_out,
        nll_after_held_out=report.nll_after_held_out,
        tokens=sum(row.completion_tokens for row in rows),
        tokens_per_second=tokens_watched / writing if writing else 0.0,
    )
