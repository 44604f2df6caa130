"""All diagnostics of a run, and what follows from them.

In: a `RunTable`. Out: a `Diagnosis`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nas_ray.diagnostics.convergence import diagnose_convergence
from nas_ray.diagnostics.diagnostic import Cause, Diagnostic
from nas_ray.diagnostics.edits import diagnose_edits
from nas_ray.diagnostics.likelihoods import diagnose_likelihoods
from nas_ray.diagnostics.novelty import diagnose_novelty
from nas_ray.diagnostics.proxy import diagnose_proxy
from nas_ray.diagnostics.quality import diagnose_quality
from nas_ray.run_table import RunTable, freeze_bar

# What comes first brings about what comes after: noise is selected and then memorised; a model that knows its elites by
# heart writes them again, and so starves.
CAUSES: tuple[Cause, ...] = ("noisy", "memorising", "starving", "falling", "not learning", "edits fail")
MEANINGS: dict[Cause, str] = {
    "noisy": "it measures noise",
    "starving": "it starves: too little that is new and good to learn from",
    "memorising": "it memorises its elites instead of learning from them",
    "falling": "quality fell on the way",
    "not learning": "no learning is shown",
    "edits fail": "edits cost more than they bring",
}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The answers D1 to D17."""

    bar: float | None  # the frozen one, 0 .. 1
    diagnostics: tuple[Diagnostic, ...]

    @property
    def causes(self) -> tuple[Cause, ...]:
        """What the run suffers from, the deepest first."""
        found = {one.cause for one in self.diagnostics if one.verdict == "problem"}
        return tuple(cause for cause in CAUSES if cause in found)

    @property
    def headline(self) -> str:
        """All of it in a sentence."""
        verdicts = {one.id: one.verdict for one in self.diagnostics}
        grows = verdicts["D8"] == "ok"
        if self.causes:
            first = next(one.id for one in self.diagnostics if one.cause == self.causes[0])
            troubles = "; ".join(MEANINGS[cause] for cause in self.causes)
            but = "The share of good programs grows, but: " if grows else "This run has problems: "
            return f"{but}{troubles}. Begin with {first}."
        notes = ", ".join(one.id for one in self.diagnostics if one.verdict == "note" and one.id != "D17")
        more = f" To know: {notes}." if notes else ""
        if grows:
            return f"This run is learning.{more}"
        if verdicts["D8"] == "note":
            return f"This run has learned, but not in its last cycles.{more}"
        return f"Nothing is wrong as far as can be seen; whether it learns is not testable yet.{more}"

    def as_values(self) -> dict[str, Any]:
        """Everything as plain values, for JSON; what is not a number there is null."""
        return {
            "headline": self.headline,
            "causes": self.causes,
            "bar": self.bar,
            "diagnostics": [
                {
                    "id": one.id,
                    "question": one.question,
                    "verdict": one.verdict,
                    "finding": one.finding,
                    "measured": one.measured.as_values() if one.measured is not None else None,
                    "unit": one.unit,
                    "advice": one.advice,
                    "cause": one.cause,
                }
                for one in self.diagnostics
            ],
        }


def diagnose(table: RunTable, bar: float | None = None) -> Diagnosis:
    """Put all seventeen questions to a run.

    Args:
        table: of a run, finished or not.
        bar: accuracy, 0 .. 1, that programs are counted over in all cycles; None: that of the first cycle.
    """
    frozen = freeze_bar(table) if bar is None else bar
    found = [
        *diagnose_likelihoods(table),
        *diagnose_quality(table),
        *diagnose_convergence(table, frozen),
        *diagnose_edits(table),
        *diagnose_novelty(table),
        *diagnose_proxy(table),
    ]
    found.sort(key=lambda one: int(one.id[1:]))
    return Diagnosis(frozen, (*found, _enough(found)))


def _enough(found: Iterable[Diagnostic]) -> Diagnostic:
    """D17: which questions had too few rows; what would do stands with each of them."""
    missing = [one.id for one in found if one.verdict == "untestable"]
    question = "Is there enough data for all of this?"
    if missing:
        return Diagnostic("D17", question, "note", f"no verdict on {', '.join(missing)}: what each needs stands there")
    return Diagnostic("D17", question, "ok", "every question has an answer")
