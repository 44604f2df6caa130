"""Shared fixtures. Process settings come first: they only work when set before torch is imported anywhere."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# The same examples in every run: a test fails because the code changed, not by chance.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KMP_BLOCKTIME", "0")
os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # on a busy machine Ray's own 30 s are too few


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One small local Ray cluster for all tests that need Ray; no test starts its own but those in tests/cluster/."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
