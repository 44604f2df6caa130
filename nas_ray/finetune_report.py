"""What a fine-tune did: the figures that a cycle's row and the theory need, kept beside the adapter as a file.

In: the figures. Out: a frozen `FinetuneReport`, written to and read from an adapter's folder. No torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPORT_FILE = "finetune.json"


class FinetuneError(ValueError):
    """A fine-tune that would fail again if it were repeated: wrong settings, a taken folder, a loss not finite."""


@dataclass(frozen=True, slots=True)
class FinetuneReport:
    """What a fine-tune did. NLL: sum over a program's tokens (code and end-of-text), nats, under its generation prompt.

    `before` is under the model that wrote the programs (the previous adapter, also where `start` is "fresh"); `after`
    is under the new adapter. Both at temperature 1, without dropout, aligned with the ids.
    """

    adapter: str = ""  # folder of the new adapter; "" if none was made
    reason: str = ""  # why none was made; "" if one was
    version: int = 0
    start: str = ""  # "continue" | "fresh"
    previous: str = ""  # the adapter that wrote the newest pairs; "" for the base model
    training_ids: tuple[str, ...] = ()
    held_out_ids: tuple[str, ...] = ()
    too_long_ids: tuple[str, ...] = ()  # left out: longer than the model's context
    nll_before_train: tuple[float, ...] = ()
    nll_after_train: tuple[float, ...] = ()
    nll_before_held_out: tuple[float, ...] = ()
    nll_after_held_out: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()  # mean over an epoch's training tokens while it ran, nats per token
    resumed: tuple[int, ...] = ()  # for each time that a lost worker's work was taken up: epochs already done
    steps: int = 0  # optimiser steps
    tokens: int = 0  # trained on in one epoch, prompts not counted
    workers: int = 1
    device: str = ""
    train_seconds: float = 0.0  # forward, backward, step; of the process that ended the work
    measure_seconds: float = 0.0  # both NLL measurements
    seconds: float = 0.0  # all, with loading, saving and (from `jobs.finetune`) starting the workers

    def save(self, folder: Path) -> None:
        """Write `finetune.json` into the adapter's folder."""
        (folder / REPORT_FILE).write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> FinetuneReport:
        """The report that lies beside an adapter."""
        read: dict[str, Any] = json.loads((folder / REPORT_FILE).read_text())
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in read.items()
        }
        return cls(**values)
