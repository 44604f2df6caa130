"""A small LEMUR tree, written in a moment: real programs, trials as LEMUR's trainer keeps them, and broken files."""

from __future__ import annotations

import json
import random
from pathlib import Path

from nas_ray.grammar import sample_program

TRAINING = """
    def train_setup(self, prm):
        self.optimizer = torch.optim.SGD(self.parameters(), lr=prm["lr"], momentum=prm["momentum"])

    def learn(self, train_data):
        for images, labels in train_data:
            self.optimizer.zero_grad()
            torch.nn.functional.cross_entropy(self(images), labels).backward()
            self.optimizer.step()


def supported_hyperparameters():
    return {"lr", "momentum"}
"""


def lemur_program(network: str) -> str:
    """A network, whose last class is Net, with LEMUR's interface behind it."""
    return f"import torch\n{network.rstrip()}\n{TRAINING}"


def trial(accuracy: float, **others: object) -> dict[str, object]:
    """One entry of a list of trials."""
    values = {"accuracy": accuracy, "batch": 16, "duration": 47112679057, "lr": 0.01, "momentum": 0.9}
    return {**values, "transform": "norm_32", "uid": "dee8a7c3bf0b92aa3f2ad3960835ca90", **others}


def put_trials(root: Path, folder: str, epoch: str, text: object) -> None:
    """Write one file of trials; a string as it is, anything else as JSON."""
    path = root / "ab" / "nn" / "stat" / "train" / folder / f"{epoch}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))


def put_program(root: Path, name: str, code: str | bytes) -> None:
    """Write one program file."""
    path = root / "ab" / "nn" / "nn" / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(code if isinstance(code, bytes) else code.encode())


def networks(count: int) -> list[str]:
    """Different networks, the last class of each being Net."""
    dice, found = random.Random(0), list[str]()
    while len(found) < count:
        code = sample_program(dice, (1, 8, 8), 10, 500_000, mistakes=0)
        if "class Net" in code.split("\nclass ")[-1] or code.split("\nclass ")[-1].startswith("Net"):
            found.append(code)
    return found
