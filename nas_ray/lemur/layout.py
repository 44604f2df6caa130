"""How a run's protocol and data set are said in LEMUR's words: transforms, loaders, trials.

In: a configuration, rows of a run. Out: names, and the text of files that LEMUR lacks.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

from nas_ray.augmentation import crop_margin
from nas_ray.config import ProtocolConfig
from nas_ray.schema import EvaluationRow
from nas_ray.training import hyperparameters

PREFIX = "nasray"  # of the names of programs and files that come from here; LEMUR takes what is before the first "-"
RESOLUTIONS = (32, 64, 128, 256, 299, 512)  # for which LEMUR has transforms
LOADERS = frozenset({"cifar-10", "cifar-100", "imagenette", "mnist", "svhn", "celeba-gender", "places365"})  # LEMUR's
OUR_LOADERS = {"digits": "lemur_digits.txt", "fashion-mnist": "lemur_fashion_mnist.txt"}  # ours, for LEMUR

TRANSFORM = """import torchvision.transforms as transforms


def transform(norm):
    return transforms.Compose([
{steps}
    ])
"""


def program_name(program_id: str) -> str:
    """LEMUR's name of a program: the same for every export of it, free of `_`, and its own."""
    return f"{PREFIX}-{program_id}"


def transform_of(protocol: ProtocolConfig) -> tuple[str, str]:
    """(name, text) of the transform that prepares images as the protocol does; the text is "" for LEMUR's own.

    LEMUR resizes with another filter than nas-ray, so resized images differ a little.
    """
    side, flips, crops = protocol.resolution, "flip" in protocol.augmentation, "crop" in protocol.augmentation
    if not crops and (side is None or side in RESOLUTIONS):
        return "_".join(["norm", *([str(side)] if side else []), *(["flip"] if flips else [])]), ""
    steps = [f"transforms.Resize(({side}, {side}))"] if side else []
    if crops:
        margin = crop_margin(side, side) if side else None
        steps.append(
            f"transforms.RandomCrop({side}, padding={margin})"
            if side
            else "lambda image: transforms.RandomCrop(image.size[::-1], padding=max(1, min(image.size) // 8))(image)"
        )
    steps += ["transforms.RandomHorizontalFlip()"] if flips else []
    steps += ["transforms.ToTensor()", "transforms.Normalize(*norm)"]
    name = "_".join([PREFIX, *([str(side)] if side else []), *protocol.augmentation])
    return name, TRANSFORM.format(steps="\n".join(f"        {step}," for step in steps))


def loader_of(dataset: str) -> str | None:
    """The text of a loader that LEMUR lacks; "" for a data set that it has, None for one that neither side has."""
    if dataset in LOADERS:
        return ""
    template = OUR_LOADERS.get(dataset)
    return files("nas_ray").joinpath(f"templates/{template}").read_text(encoding="utf-8") if template else None


def trial_of(row: EvaluationRow, protocol: ProtocolConfig, names: Iterable[str], transform: str) -> dict[str, Any]:
    """One evaluation as an entry of LEMUR's list; `names` are the hyperparameters that the program is given.

    `protocol` is the one that the row was measured under, with its epochs. `accuracy` is that of nas-ray's validation
    split. `duration` is whole nanoseconds of training.
    """
    values = hyperparameters(protocol)
    given = {"batch", *names, *(["weight_decay"] if protocol.weight_decay else [])} & set(values)
    parts = {**{name: values[name] for name in sorted(given)}, "transform": transform}
    seconds = row.train_seconds if row.train_seconds is not None else row.seconds
    measured = {"accuracy": row.accuracy, "duration": round(seconds * 1e9), "uid": uid_of(parts)}
    return dict(sorted({**parts, **measured}.items()))


def uid_of(parts: Mapping[str, Any]) -> str:
    """A name for a set of hyperparameters, as LEMUR makes it: the MD5 of how Python prints it, without white space.

    LEMUR prints it in the order in which it drew the values, which is nowhere kept; here it is sorted.
    """
    return hashlib.md5(re.sub(r"\s", "", str(dict(sorted(parts.items())))).encode()).hexdigest()


def write_trials(trials: Iterable[Mapping[str, Any]]) -> str:
    """The text of one EPOCH.json, the best trial first as LEMUR keeps them."""
    return json.dumps(sorted(trials, key=lambda trial: -trial["accuracy"]), indent=4) + "\n"
