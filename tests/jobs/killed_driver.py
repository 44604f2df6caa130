"""A search or a resume that kills itself with SIGKILL at a chosen moment:  python killed_driver.py MOMENT search ...

In: the moment's name, then the command line of `nas-ray`. Out: a process that dies without a chance to tidy up, exactly
there. Everything but the wire that pulls the trigger is the real thing.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


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
    import jobs.search
    from actors.generator import GeneratorHandle
    from nas_ray.ledger import Ledger
    from nas_ray.store import Store

    if moment == "generation":  # some programs are journalled, others are still being written
        die_before(Ledger, "add_completion", lambda ledger, done: len(ledger.unfinished(done.cycle)) >= 2)
    elif moment == "evaluation":  # an evaluation is kept, its candidate's final row is not
        die_before(Ledger, "add_candidate", lambda ledger, row: row.accuracy is not None)
    elif moment == "fine-tune":  # every candidate is final, the adapter is not made
        die_before(jobs.search, "finetune")
    elif moment == "swap":  # the adapter is made, the cycle is not closed
        die_before(GeneratorHandle, "swap")
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
