"""A node that joins during a search passes the same gate: one that cannot hold candidates ends it, and nothing is lost.

The weak node is a second Ray node on this machine that is without Landlock and bubblewrap.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from nas_ray.funnel import check_accounting
from nas_ray.sandbox import probe_walls
from nas_ray.store import Store

WITHOUT_LANDLOCK = Path(__file__).parents[1] / "jobs" / "without_landlock.py"
CANDIDATES = 120  # a minute or more: a node takes its time to join
SETTINGS = (
    "cycles=1", f"candidates_per_cycle={CANDIDATES}", "model.engine=transformers", "model.concurrent_requests=1",
    "finetune.enabled=false", "dataset.train_limit=300",
)  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Cluster:
    address: str
    folder: str
    environment: dict[str, str]

    @contextmanager
    def node(self, *options: str, prefix: tuple[str, ...] = ()) -> Iterator[None]:
        """A Ray node on this machine, ended at the end."""
        process = subprocess.Popen(
            [sys.executable, *prefix, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats",
             # Each of these has a fixed default, which another node on this machine may hold.
             f"--dashboard-agent-listen-port={free_port()}", f"--dashboard-agent-grpc-port={free_port()}", *options],
            env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield
            assert process.poll() is None, "the node ended by itself"
        finally:
            process.terminate()
            process.wait(60)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "jobs.cli", *arguments, "--address", self.address]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head node of its own."""
    if probe_walls().tier > "B":
        pytest.skip("this machine is below the usual floor itself")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {
        "PYTHONPATH": str(Path.cwd()),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_raylet_start_wait_time_s": "120",
        "OMP_WAIT_POLICY": "PASSIVE",
        "KMP_BLOCKTIME": "0",
    }
    port = free_port()
    # Ray's sockets lie in this folder, and a socket's path may have 107 characters at most: pytest's would be too long.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder, ExitStack() as up:
        cluster = Cluster(f"127.0.0.1:{port}", folder, environment)
        up.enter_context(
            cluster.node("--head", f"--port={port}", "--num-cpus=2", f"--temp-dir={folder}",
                         f"--ray-client-server-port={free_port()}", "--include-dashboard=false")
        )  # fmt: skip
        deadline = time.monotonic() + 150
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline, "the head node does not answer"
            time.sleep(0.5)
        yield cluster


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_weak_node_that_joins_ends_the_search_which_goes_on_without_it(cluster: Cluster, tmp_path: Path) -> None:
    settings = [f"--set={setting}" for setting in (*SETTINGS, f"folder={tmp_path}")]
    log = (tmp_path / "log").open("w+")
    folder = tmp_path / "run"
    driver = subprocess.Popen(
        cluster.command("search", "--run", folder.name, *settings),
        env=cluster.environment, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 240
        while not list(folder.glob("candidates/*/*.parquet")):
            assert driver.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
        with cluster.node(f"--address={cluster.address}", "--num-cpus=1", prefix=(str(WITHOUT_LANDLOCK),)):
            code = driver.wait(200)
    finally:
        if driver.poll() is None:
            driver.kill()
    said = (tmp_path / "log").read_text()
    assert code == 2, said
    assert said.count(": tier C") >= 2, said  # printed when it joined, and named in the refusal
    assert "containment.floor = B" in said
    assert f"nas-ray resume {folder}" in said
    assert "Traceback" not in said
    store = Store.open(folder)
    kept = {(row.cycle, row.index): row for row in store.candidates()}
    assert 1 <= len(kept) < CANDIDATES
    assert [row.tier for row in store.nodes()][1:] == ["C"]
    assert "C" not in {one.tier for one in store.evaluations()}

    ended = subprocess.run(
        cluster.command("resume", str(folder)),
        env=cluster.environment, text=True, capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = {(row.cycle, row.index): row for row in Store.open(folder).candidates()}
    assert len(rows) == CANDIDATES
    assert kept.items() <= rows.items()
    assert check_accounting(Store.open(folder)) == []
