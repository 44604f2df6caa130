"""One candidate, taken out of its run: a program that loads itself, its weights, and a card of what was measured.

In: a run's store and a candidate. Out: `STEM.py` (the program as written, and a function that loads it; needs torch and
safetensors only), `STEM.safetensors` and `STEM.json`. The candidate is trained again by the run's protocol, in the
sandbox, and measured on the validation split and, this once, on the test split.
"""

from __future__ import annotations

import json
import platform
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_ray.candidate import Measurement
from nas_ray.config import RunConfig
from nas_ray.datasets import Dataset, append_test, in_shape, load_dataset, out_shape
from nas_ray.grading import grade
from nas_ray.interval import wilson
from nas_ray.leaderboard import Dossier, open_dossier
from nas_ray.outcome import Outcome
from nas_ray.sandbox import Sandbox
from nas_ray.schema import CandidateRow, now
from nas_ray.standalone import write_standalone
from nas_ray.store import Store
from nas_ray.training import hyperparameters

BYTES_A_PARAMETER = 8  # room for the weights: float64 at most,
SPARE_BYTES = 64 << 20  # and for what is not trained, such as running means; untouched memory costs nothing
FORMAT = 1  # of the card


class ExportError(Exception):
    """A candidate that cannot be exported: which one and why."""


@dataclass(frozen=True, slots=True)
class Export:
    """What was written."""

    program: Path
    weights: Path
    card_path: Path
    card: dict[str, Any]


def export_candidate(
    store: Store, name: str, folder: Path, epochs: int | None = None, device: str = "cpu", threads: int = 1
) -> Export:
    """Retrain the candidate that `name` means and write its three files into `folder`.

    Args:
        epochs: in place of the protocol's; the time limit grows with them.
        device: "cpu" or "cuda".
        threads: as many as in the search give the same weights on a CPU.

    Raises:
        ExportError: it was never valid, or cannot be trained again.
        StoreError: no such candidate. DatasetError: the data set is not here.
        ContainmentError: this machine is below the run's `containment.floor`.
    """
    dossier = open_dossier(store, name)
    row = dossier.row
    if row.outcome is not Outcome.VALID:
        raise ExportError(f"candidate {row.id or name} is {row.outcome}; only a valid one can be exported.")
    config = _stretch(store.config, epochs)
    dataset = load_dataset(config.dataset, config.protocol.resolution)
    room = BYTES_A_PARAMETER * (row.parameters or config.budget.parameters) + SPARE_BYTES
    with Sandbox(
        device, append_test(dataset), config.protocol, config.budget, threads, containment=config.containment
    ) as sandbox:
        sandbox.wait_until_ready()  # a machine that is too weak says so itself, and not as an outcome of the candidate
        measurement, logits, weights = sandbox.train(row.code, room)
    if logits is None:
        why = f"{measurement.outcome}, {measurement.detail}"
        raise ExportError(f"candidate {row.id} could not be trained again: {why}")
    card = _card(dossier, config, dataset, logits, measurement)
    program, weights_path, card_path = (folder / card["files"][name] for name in ("program", "weights", "card"))
    export = Export(program, weights_path, card_path, card)
    network = {key: card["network"][key] for key in ("in_shape", "out_shape", "prm", "mean", "std")}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        export.program.write_text(write_standalone(row.code, network, _about(card)), encoding="utf-8")
        export.weights.write_bytes(weights)
        export.card_path.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ExportError(f"could not write into {folder}: {error.strerror}. Choose another by --out.") from error
    return export


def _stem(row: CandidateRow) -> str:
    """A name that Python can import."""
    return re.sub(r"\W", "_", f"{row.run}_{row.id[:10]}")


def _about(card: dict[str, Any]) -> list[str]:
    """The comment at the head of the program."""
    return [
        f"Candidate {card['id']} of the search {card['run']!r}, written by the {card['lineage']['model']} model.",
        f"{card['dataset']['name']}: {100 * card['test']['accuracy']:.2f} % on the test split, "
        f"{100 * card['validation']['accuracy']:.2f} % on the validation split.",
        f"Needs torch and safetensors:  import {Path(card['files']['program']).stem} as it; net = it.{{load}}()",
    ]


def _stretch(config: RunConfig, epochs: int | None) -> RunConfig:
    """The configuration with other epochs, and the time that they need."""
    if epochs is None:
        return config
    seconds = config.budget.train_seconds * max(1.0, epochs / config.protocol.epochs)
    protocol = config.protocol.model_copy(update={"epochs": epochs})
    return config.model_copy(
        update={"protocol": protocol, "budget": config.budget.model_copy(update={"train_seconds": seconds})}
    )


def _card(
    dossier: Dossier, config: RunConfig, dataset: Dataset, logits: NDArray[np.float32], measurement: Measurement
) -> dict[str, Any]:
    row, count, stem = dossier.row, len(dataset.validation_labels), _stem(dossier.row)
    return {
        "format": FORMAT,
        "id": row.id,
        "run": config.name,
        "created": now().isoformat(timespec="seconds"),
        "files": {"program": f"{stem}.py", "weights": f"{stem}.safetensors", "card": f"{stem}.json"},
        "validation": _score(logits[:count], dataset.validation_labels) | {"accuracy_in_the_search": row.accuracy},
        "test": _score(logits[count:], dataset.test_labels),
        "network": {
            "in_shape": in_shape(dataset),
            "out_shape": out_shape(dataset),
            "prm": hyperparameters(config.protocol),
            "mean": dataset.mean,
            "std": dataset.std,
            "parameters": row.parameters,
            "flops_per_image": row.flops,
        },
        "dataset": config.dataset.model_dump(mode="json", exclude={"root"}),
        "protocol": config.protocol.model_dump(mode="json"),
        "training": {
            "images": round(config.protocol.fraction * len(dataset.train_labels)),
            "seconds": measurement.train_seconds,
            "device": measurement.device,
            "torch": version("torch"),
            "python": platform.python_version(),
        },
        "lineage": {
            "model": config.model.path,
            "engine": row.engine,
            "adapter": row.adapter,
            "taught_by": dossier.teacher.training_ids if dossier.teacher else (),
            "cycle": row.cycle,
            "index": row.index,
            "seed": row.seed,
            "prompt": row.prompt,
            "parents": row.parent_ids,
        },
    }


def _score(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Measured figures of one split; the interval is Wilson's."""
    accuracy, loss = grade(logits, labels)
    interval = wilson(round(accuracy * len(labels)), len(labels))
    assert interval is not None  # a split is never empty
    return {"accuracy": accuracy, "interval_95": interval[::2], "loss_nats": loss, "images": len(labels)}
