"""A job's connection to Ray: joined or started, left in order, and ended in order by a signal.

In: an address, or none. Out: a connected process, in which `ray job stop` and Ctrl-C are both a KeyboardInterrupt.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import ray

from nas_ray.threads import PASSIVE_THREADS


class RayConnectionError(RuntimeError):
    """No cluster answers at the address, or not with the token that this process has."""


@contextmanager
def connect(address: str | None = None) -> Iterator[None]:
    """Join the cluster at `address` or in RAY_ADDRESS, else start one on this machine; leave it at the end.

    Raises RayConnectionError.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    os.environ.update({key: os.environ.get(key, value) for key, value in PASSIVE_THREADS.items()})
    # Ray says on every start that local clusters have a token by now, which is as it should be.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    try:
        ray.init(
            address=address or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.WARNING,
            # A cluster started here inherits this process's environment; one that was there before has its own.
            runtime_env={"env_vars": PASSIVE_THREADS} if address else None,
        )
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        raise RayConnectionError(
            f"no Ray cluster answers at {address or 'this machine'}: {error}. Check --address and RAY_ADDRESS (unset, "
            "a cluster is started on this machine) and, with RAY_AUTH_MODE=token, the token in ~/.ray/auth_token"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def end_on_signal(note: str) -> Iterator[None]:
    """Make SIGTERM, which `ray job stop` sends, what Ctrl-C is: print `note` and raise KeyboardInterrupt.

    Comes after `connect`, which sets a handler too. The note comes first, because Ray kills a job 3 s after the signal.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        print(note, file=sys.stderr, flush=True)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
