"""What a search says when it is over.

In: its run folder. Out: on the console the cycles, the best candidates, whether it learned, where things are, and
what to run next.
"""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from jobs.diagnose import describe_briefly
from jobs.tables import ID_DIGITS, candidate_table, cycle_table
from nas_ray.corpus_comparison import describe_corpus
from nas_ray.diagnostics import diagnose
from nas_ray.leaderboard import WINNERS_CURSE, rank
from nas_ray.progress import measure_progress
from nas_ray.run_table import RunTable
from nas_ray.store import Store

TOP = 5


def print_summary(store: Store, console: Console) -> None:
    """Print the end of a search; also right for one that stopped early."""
    progress = measure_progress(store)
    console.print()
    console.print(cycle_table(progress.cycles))
    best = rank(store.candidates(), TOP)
    if best:
        console.print()
        console.print(candidate_table(best))
        console.print(WINNERS_CURSE, soft_wrap=True)
    corpus = describe_corpus(store)
    if corpus:
        console.print()
        console.print(Text(corpus), soft_wrap=True)
    shown = store.folder
    if progress.finished_cycles:
        console.print()
        for line in describe_briefly(diagnose(RunTable.read(store)), shown):
            console.print(Text(line), soft_wrap=True)
    lines = [f"Everything is in {shown}: Parquet tables, adapters, and report.html to open in a browser."]
    if best:
        first = best[0].id[:ID_DIGITS]
        lines.append(f"Next:  nas-ray show {shown} {first}      its code, lineage and measurements")
        lines.append(f"       nas-ray export {shown} {first}    retrain it, measure it on the test split, take it away")
    if not progress.finished:
        lines.append(f"Not finished. Go on with:  nas-ray resume {shown}")
    console.print()
    for line in lines:
        console.print(Text(line), soft_wrap=True)
