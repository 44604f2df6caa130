"""The zygote: a process that has everything imported and warm, and forks a child for each program.

In: the descriptor of a socket and the scratch folder as arguments; over the socket one opening frame, then a frame for
each task (see `launcher`). Out: a reply to each. It runs no candidate code itself, holds no labels but the training
set's, and ends, with all that descends from it, when its supervisor does.

It must be single-threaded at every fork: a thread pool does not survive one, and the child would wait for it for
ever.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

import torch

from nas_ray.build import build_program, load_net
from nas_ray.config import BudgetConfig, ContainmentConfig, ProtocolConfig
from nas_ray.sandbox.child import Setting, Task, run_child
from nas_ray.sandbox.confinement import Confinement
from nas_ray.sandbox.frames import Reply, receive_frame, send_frame, send_reply
from nas_ray.sandbox.kernel import adopt_orphans
from nas_ray.sandbox.memory import Layout, map_arrays
from nas_ray.sandbox.probe import find_confinement
from nas_ray.sandbox.reach import find_reach
from nas_ray.sandbox.tiers import NO_WALLS
from nas_ray.scratch import clear_scratch, remove_scratch
from nas_ray.training import TrainingData, hyperparameters, train_and_predict

# Touches what most programs touch, so that no child pays for a first time.
WARM_PROGRAM = """
import math
import torch
import torch.nn as nn
import torch.nn.functional as F


class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        self.conv = nn.Conv2d(in_shape[1], 4, 3, padding=1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm = nn.BatchNorm2d(4)
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(8, out_shape[0])

    def forward(self, x):
        x = self.pool(F.relu(self.norm(self.conv(x))))
        x = F.gelu(self.depthwise(x)) + x
        x = torch.cat([F.adaptive_avg_pool2d(x, 1).flatten(1), x.amax((2, 3))], 1)
        return self.head(self.drop(F.silu(x)))
"""
WARM_IMAGES = 8


def count_threads() -> int:
    """Threads of this process, those of C libraries included."""
    return len(os.listdir("/proc/self/task"))


def sweep() -> None:
    """Kills and reaps every process that descends from this one. Orphans come to it, so none is out of reach."""
    listing = f"/proc/self/task/{os.getpid()}/children"
    while True:
        with open(listing) as file:
            children = [int(pid) for pid in file.read().split()]
        if not children:
            return
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def find_walls(opening: dict[str, Any], scratch: str) -> Confinement:
    """The confinement of this node's candidates, tried before anything else is done."""
    budget, limits = BudgetConfig(**opening["budget"]), ContainmentConfig(**opening["containment"])
    device = opening["device"]
    reach = find_reach(scratch, device)
    # A GPU's driver reserves far more memory than it uses, which the limit on private memory would not survive.
    memory = int(budget.memory_gib * (1 << 30)) if device == "cpu" else None
    takes = (memory, limits.file_bytes, limits.threads + opening["threads"])
    if not opening["raise_walls"]:
        return Confinement(NO_WALLS, os.getuid(), reach, None, None, *takes, device)
    return find_confinement(reach, *takes, device, opening["outside"])


def describe_confinement(confinement: Confinement) -> dict[str, Any]:
    """What the supervisor must know of it: the walls, the user, and what the filter hands to the witness."""
    watched = confinement.filter.watched if confinement.filter is not None else {}
    return {
        "walls": confinement.walls.to_json(),
        "uid": confinement.uid if confinement.walls.privileges == "uid" else None,
        "watched": list(watched.items()),
        "reach": dataclasses.asdict(confinement.reach),
    }


def open_setting(opening: dict[str, Any], handles: list[int], confinement: Confinement) -> Setting:
    """The children's setting from the opening frame; maps the training data."""
    data, validation = None, None
    if handles:
        arrays = map_arrays(handles[0], [Layout(**layout) for layout in opening["training"]])
        os.close(handles[0])
        images, labels = (torch.from_numpy(arrays[name]) for name in ("images", "labels"))
        data = TrainingData(images, labels, opening["classes"], tuple(opening["mean"]), tuple(opening["std"]))
        validation = Layout(**opening["validation"])
    return Setting(
        device=opening["device"],
        protocol=ProtocolConfig(**opening["protocol"]),
        budget=BudgetConfig(**opening["budget"]),
        threads=opening["threads"],
        confinement=confinement,
        data=data,
        validation=validation,
    )


def warm_up(setting: Setting) -> None:
    """Runs the children's whole path once on a few images: the first optimiser step alone imports 800 modules."""
    torch.set_num_threads(1)
    protocol = setting.protocol.model_copy(update={"epochs": 1, "batch_size": WARM_IMAGES, "fraction": 1.0})
    prm = hyperparameters(protocol)
    build_program(WARM_PROGRAM, (1, 1, 8, 8), (10,), prm, BudgetConfig())
    if setting.data is None:
        return
    few = setting.data.images[:WARM_IMAGES]
    data = dataclasses.replace(setting.data, images=few, labels=setting.data.labels[:WARM_IMAGES])
    if setting.device == "cpu":  # a GPU must not be touched before the fork, and its backward pass starts threads
        train_and_predict(load_net(WARM_PROGRAM), data, few, protocol, "cpu", prm)
    else:
        network = torch.nn.Linear(1, 1)
        network.weight.grad, network.bias.grad = torch.zeros(1, 1), torch.zeros(1)
        torch.optim.SGD(network.parameters(), lr=protocol.lr, momentum=protocol.momentum).step()


def serve(stream: socket.socket, setting: Setting, scratch: str) -> None:
    """Forks a child for each task until the supervisor is gone."""
    me = os.getpid()
    while True:
        try:
            frame, handles = receive_frame(stream)
        except (EOFError, ConnectionError):
            return
        if "reap" in frame:
            _, status = os.waitpid(frame["reap"], 0)
            sweep()
            clear_scratch(scratch)
            send_reply(stream, Reply.REAPED, status)
            continue
        if count_threads() != 1:
            send_reply(stream, Reply.FAILED, count_threads())
            return
        task = Task(**{**frame, "in_shape": tuple(frame["in_shape"]), "out_shape": tuple(frame["out_shape"])})
        try:
            pid = os.fork()
        except OSError as error:
            pid = -(error.errno or 1)
        if pid == 0:
            run_child(setting, task, me, *handles)
        for handle in handles:
            os.close(handle)
        send_reply(stream, Reply.FORKED, pid)


def main() -> None:
    stream, scratch = socket.socket(fileno=int(sys.argv[1])), sys.argv[2]
    try:
        opening, handles = receive_frame(stream)
        adopt_orphans()
        confinement = find_walls(opening, scratch)
        setting = open_setting(opening, handles, confinement)
        warm_up(setting)
        # What a program imports late is looked for in the libraries, where it may look, and nowhere else.
        sys.path[:] = [entry for entry in sys.path if confinement.reach.may_read(os.path.realpath(entry), listing=True)]
        gc.collect()
        gc.freeze()  # what a collection in a child would touch, the kernel would have to copy
        send_reply(stream, Reply.READY if count_threads() == 1 else Reply.FAILED, count_threads())
        send_frame(stream, describe_confinement(confinement), [])
        serve(stream, setting, scratch)
    except (EOFError, ConnectionError):
        pass  # the supervisor went away
    finally:
        sweep()
        remove_scratch(scratch)


if __name__ == "__main__":
    main()
