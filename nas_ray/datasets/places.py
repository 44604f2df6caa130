"""Where a data set's files are looked for, and where a download would go.

In: a data set's name and the configured root. Out: folders, in the order in which they are tried.

Usual places, when no root is configured: $NAS_RAY_DATA/NAME, $NAS_RAY_DATA, ~/.cache/nas-ray/datasets/NAME
($XDG_CACHE_HOME instead of ~/.cache where it is set), and /usr/share/datasets/NAME, where Debian installs
its package dataset-fashion-mnist.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nas_ray.datasets.dataset import DatasetError


@dataclass(frozen=True, slots=True)
class Request:
    """What a source is asked for."""

    name: str
    root: Path | None = None  # only place to look, where given
    resolution: int | None = None  # side in pixels; for sources whose files have many sizes
    download: bool = False  # allowed to fetch missing files from the open network

    @property
    def places(self) -> list[Path]:
        """The folders to look in, most specific first."""
        if self.root is not None:
            return [self.root]
        data = os.environ.get("NAS_RAY_DATA")
        own = [Path(data) / self.name, Path(data)] if data else []
        return [*own, _cache() / self.name, Path("/usr/share/datasets") / self.name]

    @property
    def download_place(self) -> Path:
        """The folder that a download fills: the first place that is this data set's own."""
        return self.places[0]

    def explain_missing(self, wanted: str, remedies: Iterable[str]) -> DatasetError:
        """The error for files found in none of the places: what was wanted, where it was looked for, what to do."""
        looked = ", ".join(str(place) for place in self.places)
        advice = "".join(f"\n  - {remedy}" for remedy in remedies)
        return DatasetError(f"{self.name}: no {wanted} in {looked}. Do one of:{advice}")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "nas-ray" / "datasets"
