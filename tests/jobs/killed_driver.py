"""A search or a resume that kills itself with SIGKILL at a chosen moment:  python killed_driver.py MOMENT search ...

In: the moment's name, then the command line of `nas-ray`. Out: a process that dies without a chance to tidy up, exactly
there. Everything but the wire that pulls the trigger is the real thing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_checkpoint(storage: Path) -> None:
    """Die as soon as Ray Train has kept the state after an epoch."""
    while not any(storage.rglob("*epoch*")):
        time.sleep(0.002)
    die()


def die_before(owner: Any, name: str, condition: Callable[..., bool] = lambda *_, **__: True) -> None:
    """Die when `owner.name` is called and `condition` holds for its arguments."""
    real = getattr(owner, name)

    def wired(*arguments: Any, **options: Any) -> Any:
        if condition(*arguments, **options):
            die()
        return real(*arguments, **options)

    setattr(owner, name, wired)


def arm(moment: str) -> None:
    """Set the wire for one of the moments."""
    from actors.finetune_workers import FinetuneWorkers
    from actors.generator import GeneratorHandle
    from nas_ray.ledger import Ledger
    from nas_ray.store import Store

    if moment == "generation":  # some programs are journalled, others are still being written
        die_before(Ledger, "add_completion", lambda ledger, done: len(ledger.unfinished(done.cycle)) >= 2)
    elif moment == "evaluation":  # an evaluation is kept, its candidate's final row is not
        die_before(Ledger, "add_candidate", lambda ledger, row: row.accuracy is not None)
    elif moment == "rung":  # a candidate has some of its trainings behind it, others are under way or to come
        die_before(Ledger, "add_evaluation", lambda ledger, row: row.epochs > 1)
    elif moment == "fine-tune":  # every candidate is final, the first epoch of the fine-tune is behind
        real_run = FinetuneWorkers.run

        def run(workers: FinetuneWorkers, task: Any) -> Any:
            threading.Thread(target=die_at_checkpoint, args=(Path(workers._storage),), daemon=True).start()
            return real_run(workers, task)

        FinetuneWorkers.run = run  # type: ignore[method-assign]
    elif moment == "swap":  # the adapter is made and the generator was told, the cycle is not closed
        real_swap = GeneratorHandle.swap

        def swap(handle: GeneratorHandle, folder: str | None, version: int) -> None:
            real_swap(handle, folder, version)
            if version == 1:  # made a moment ago: no closed cycle has it, so a start would not load it
                die()

        GeneratorHandle.swap = swap  # type: ignore[method-assign]
    elif moment == "re-evaluation":  # three trainings are kept, a fourth is done and is not
        kept = iter(range(1000))
        die_before(Store, "append_evaluation", lambda store, *rows: rows[0].purpose != "search" and next(kept) == 3)
    elif moment == "compaction":  # the cycle is closed, its files are half merged
        real = Store.compaction_steps

        def half(store: Store, cycle: int) -> Iterator[str]:
            for number, step in enumerate(real(store, cycle)):
                yield step
                if number == 1:
                    die()

        Store.compaction_steps = half  # type: ignore[method-assign]
    else:
        raise SystemExit(f"unknown moment {moment!r}")


if __name__ == "__main__":
    from jobs.cli import main

    arm(sys.argv[1])
    main(sys.argv[2:])
