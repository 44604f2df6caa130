"""A job's connection to Ray: joined or started, left in order, and ended in order by a signal.

In: an address, or none. Out: a connected process; `ray job stop` and Ctrl-C both become a KeyboardInterrupt in it.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import ray

# A waiting OpenMP thread must sleep, not spin: on contended cores spinning made an epoch ten times slower.
WORKER_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}


@contextmanager
def connect(address: str | None = None) -> Iterator[None]:
    """Join the cluster at `address` or in RAY_ADDRESS, else start one on this machine; leave it at the end."""
    address = address or os.environ.get("RAY_ADDRESS")
    os.environ.update({key: os.environ.get(key, value) for key, value in WORKER_ENVIRONMENT.items()})
    # Ray says on every start that local clusters have a token by now, which is as it should be.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    ray.init(
        address=address or "local",
        include_dashboard=None if address else False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        # A cluster started here inherits this process's environment; one that was there before has its own.
        runtime_env={"env_vars": WORKER_ENVIRONMENT} if address else None,
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def end_on_signal() -> Iterator[None]:
    """Make SIGTERM, which `ray job stop` sends, what Ctrl-C is. Comes after `connect`, which sets a handler too."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
