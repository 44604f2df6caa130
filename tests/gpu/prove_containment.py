"""Proves containment and grading on a GPU, where there is one: every line must say "as it should be".

    python tests/gpu/prove_containment.py [--device cuda]

In: a machine with a GPU (needs torch, scikit-learn and this package; no Ray, no vLLM). Out: a table, the GPU's memory
before and after, and exit code 1 if anything was not as it should be. `--device cpu` runs the same without a GPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import textwrap
import time
from typing import NamedTuple

from nas_ray.config import BudgetConfig, ContainmentConfig, DatasetConfig, ProtocolConfig
from nas_ray.datasets import load_dataset
from nas_ray.outcome import Outcome
from nas_ray.sandbox import Sandbox

NET = """
import ctypes, os, socket, threading, time
import torch
import torch.nn as nn


class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        self.conv = nn.Conv2d(in_shape[1], 32, 3, padding=1)
        self.norm = nn.BatchNorm2d(32)
        self.head = nn.Linear(32, out_shape[0])

    def forward(self, x):
{act}
        return self.head(torch.relu(self.norm(self.conv(x))).amax((2, 3)))
"""


class Case(NamedTuple):
    """A program by what it does in its forward pass, and how it must end."""

    name: str
    act: str
    outcomes: tuple[Outcome, ...]
    least: float = 0.0  # accuracy
    most: float = 1.0


CASES = (
    Case("honest", "pass", (Outcome.VALID,), least=0.6),
    Case("on the GPU", "assert x.device.type == DEVICE", (Outcome.VALID,), least=0.6),
    Case("threads", "t = threading.Thread(target=len, args=('',)); t.start(); t.join()", (Outcome.VALID,), least=0.6),
    Case("socket", "socket.socket()", (Outcome.FORBIDDEN,)),
    Case("socket, swallowed", "try: socket.socket()\nexcept BaseException: pass", (Outcome.FORBIDDEN,)),
    Case("file", "open('/etc/passwd')", (Outcome.FORBIDDEN,)),
    Case("process", "os.fork()", (Outcome.FORBIDDEN,)),
    Case("signal", "os.kill(os.getppid(), 0)", (Outcome.FORBIDDEN,)),
    Case("endless", "while True: pass", (Outcome.TIMEOUT,)),
    Case("endless on the GPU", "while True: x = x @ x.transpose(2, 3) @ x * 0", (Outcome.TIMEOUT,)),
    Case("GPU memory", "KEPT = [torch.ones(1 << 28, device=x.device) for _ in range(400)]", (Outcome.OUT_OF_MEMORY,)),
    Case("segmentation fault", "ctypes.string_at(0)", (Outcome.CRASHED,)),
    Case("invalid device pointer", "x.storage().resize_(0); x + 1", (Outcome.TRAIN_ERROR, Outcome.CRASHED)),
    Case("does not learn", "x = x * 0", (Outcome.VALID,), most=0.3),
    Case("not a number", "x = x + float('nan')", (Outcome.DIVERGED,)),
    Case("honest again", "pass", (Outcome.VALID,), least=0.6),
)


def gpu_memory() -> str:
    """What the driver says is in use."""
    try:
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description="Prove containment and grading on a GPU.")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    device = parser.parse_args().device
    dataset = load_dataset(DatasetConfig())
    budget = BudgetConfig(train_seconds=10.0, memory_gib=4.0, gpu_memory_gib=4.0)
    wrong = 0
    before = gpu_memory()
    with Sandbox(device, dataset, ProtocolConfig(epochs=5), budget, containment=ContainmentConfig()) as sandbox:
        begun = time.monotonic()
        sandbox.wait_until_ready()
        print(f"{device}: {sandbox.walls.describe()}; ready in {time.monotonic() - begun:.1f} s")
        for case in CASES:
            act = textwrap.indent(case.act.replace("DEVICE", repr(device)), " " * 8)
            found = sandbox.evaluate(NET.format(act=act))
            accuracy = found.accuracy if found.accuracy is not None else case.least
            right = found.outcome in case.outcomes and case.least <= accuracy <= case.most
            wrong += not right
            verdict = "as it should be" if right else f"WRONG, wanted {' or '.join(case.outcomes)}"
            share = "" if found.accuracy is None else f" {100 * found.accuracy:.1f} %"
            print(f"{case.name:24} {found.outcome}{share}: {found.detail[:80]} ({found.seconds:.2f} s) - {verdict}")
        with open(f"/proc/{sandbox.zygote_pid}/task/{sandbox.zygote_pid}/children") as file:
            left = file.read().split()
        print(f"processes left: {len(left)}")
        wrong += len(left)
    print(f"GPU memory in use before: {before}; after: {gpu_memory()}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
