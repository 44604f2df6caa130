"""The search as a Ray job with a token: `ray start`, `ray job submit`, `ray job stop`, `nas-ray resume`."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nas_ray.funnel import check_accounting
from nas_ray.store import Store

BIN = Path(sys.executable).parent
QUICK = ["candidates_per_cycle=6", "model.engine=transformers", "finetune.epochs=1", "dataset.train_limit=300"]


@dataclass(frozen=True)
class Cluster:
    address: str  # of the job server
    environment: dict[str, str]

    def ray(self, *arguments: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BIN / "ray"), *arguments],
            env=self.environment, text=True, capture_output=True, timeout=seconds, check=False,
        )  # fmt: skip

    def submit(self, *command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        return self.ray("job", "submit", "--address", self.address, "--working-dir", ".", *options, "--", *command)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head node of its own, which answers only to who knows the token."""
    dashboard = free_port()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "OMP_WAIT_POLICY": "PASSIVE",
        "KMP_BLOCKTIME": "0",
    }
    # Ray's sockets lie in this folder, and a socket's path may have 107 characters at most: pytest's would be too long.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        head = subprocess.Popen(
            [str(BIN / "ray"), "start", "--head", "--block", f"--port={free_port()}", "--num-cpus=2",
             f"--temp-dir={folder}",
             # Each of these has a fixed default, which another cluster on this machine may hold.
             f"--dashboard-agent-listen-port={free_port()}", f"--dashboard-agent-grpc-port={free_port()}",
             f"--ray-client-server-port={free_port()}",
             "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", "--disable-usage-stats"],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            cluster = Cluster(f"http://127.0.0.1:{dashboard}", environment)
            deadline = time.monotonic() + 150
            # The server answers before the agent is there that starts jobs, so only a job that ran shows that it is.
            while (tried := cluster.ray("job", "submit", "--address", cluster.address, "--", "true")).returncode != 0:
                assert time.monotonic() < deadline, f"no job can be submitted:\n{tried.stdout}\n{tried.stderr}"
                assert head.poll() is None, "ray start ended"
                time.sleep(1)
            yield cluster
        finally:
            head.terminate()
            head.wait(60)


@pytest.mark.timeout(400)
def test_submitted_search_ends_with_exit_code_0_and_a_whole_run_folder(cluster: Cluster, tmp_path: Path) -> None:
    settings = [f"--set={change}" for change in ("cycles=1", f"folder={tmp_path}", *QUICK)]
    ended = cluster.submit(
        "python", "-m", "jobs.search", "--config", "examples/quickstart.yaml", "--run", "job", *settings
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "nas-ray show" in ended.stdout  # the log says what to run next
    store = Store.open(tmp_path / "job")
    assert len(store.candidates()) == 6
    assert check_accounting(store) == []


@pytest.mark.timeout(120)
def test_submitted_mistake_fails_with_its_message_in_the_log(cluster: Cluster) -> None:
    ended = cluster.submit("python", "-m", "jobs.search", "--set", "dataset.nmae=digits")
    assert ended.returncode != 0
    assert "did you mean name?" in ended.stdout


@pytest.mark.timeout(120)
def test_without_the_token_nothing_can_be_submitted(cluster: Cluster) -> None:
    stranger = Cluster(cluster.address, {**cluster.environment, "RAY_AUTH_TOKEN": "0" * 32})
    assert stranger.submit("python", "-c", "print(1)").returncode != 0


@pytest.mark.timeout(600)
def test_stopped_job_can_be_resumed_by_another_job(cluster: Cluster, tmp_path: Path) -> None:
    settings = [f"--set={change}" for change in ("cycles=2", f"folder={tmp_path}", *QUICK)]
    begun = cluster.submit(
        "python",
        "-m",
        "jobs.search",
        "--run",
        "stopped",
        *settings,
        options=("--no-wait", "--submission-id", "stopped"),
    )
    assert begun.returncode == 0, begun.stdout + begun.stderr
    folder = tmp_path / "stopped"
    deadline = time.monotonic() + 180
    while not list(folder.glob("candidates/*/*.parquet")):
        assert time.monotonic() < deadline, cluster.ray("job", "logs", "--address", cluster.address, "stopped").stdout
        time.sleep(0.2)
    assert cluster.ray("job", "stop", "--address", cluster.address, "stopped").returncode == 0
    assert "was stopped" in cluster.ray("job", "status", "--address", cluster.address, "stopped").stdout
    assert f"nas-ray resume {folder}" in cluster.ray("job", "logs", "--address", cluster.address, "stopped").stdout
    kept = len(Store.open(folder).candidates())
    assert 1 <= kept < 12

    resumed = cluster.submit("python", "-m", "jobs.resume", str(folder))
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    store = Store.open(folder)
    assert len(store.candidates()) == 12
    assert check_accounting(store) == []
