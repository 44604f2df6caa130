"""What `nas-ray lemur import` wrote, read back.

In: a folder. Out: its programs, measurements and sketches. The tables are plain Parquet, for any reader:

    programs.parquet      one row a program (`PROGRAMS`)
    measurements.parquet  one row a trial (`MEASUREMENTS`)
    refused.parquet       one row for each file or trial that was not taken, with the reason (`REFUSED`)
    sketches.parquet      what novelty needs: one row a program or network (`SKETCHES`)
    import.json           where it came from, and the counts
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nas_ray.lemur.errors import LemurError
from nas_ray.lemur.tree import TASK, lemur_dataset
from nas_ray.normalisation import normalise
from nas_ray.program import id_of
from nas_ray.sketches import Sketcher, Sketches

FORMAT = 1
CARD = "import.json"
PROBES = 4  # programs whose id is computed again, to see that ids still mean the same

PROGRAMS = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),  # LEMUR's
        pa.field("prefix", pa.string(), nullable=False),  # the part before the first "-": who or what wrote it
        pa.field("id", pa.string(), nullable=False),  # of the whole program, as nas-ray makes it
        pa.field("network_id", pa.string(), nullable=False),  # of the network alone
        pa.field("code", pa.string(), nullable=False),
        pa.field("network", pa.string(), nullable=False),  # the code without LEMUR's training interface
        pa.field("contract", pa.bool_(), nullable=False),  # nas-ray's, as far as reading tells
        pa.field("contract_error", pa.string(), nullable=False),
    ]
)
MEASUREMENTS = pa.schema(
    [
        pa.field("program", pa.string(), nullable=False),  # LEMUR's name
        pa.field("task", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("epoch", pa.int64(), nullable=False),  # that it was measured after
        pa.field("accuracy", pa.float64(), nullable=False),  # the metric's value, 0 .. 1
        pa.field("duration_ns", pa.int64()),  # of training so far
        pa.field("transform", pa.string(), nullable=False),
        pa.field("hyperparameters", pa.string(), nullable=False),  # JSON object, keys sorted
        pa.field("uid", pa.string()),  # LEMUR's, of the hyperparameters
    ]
)
REFUSED = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),  # "program" | "file" of trials | "trial"
        pa.field("path", pa.string(), nullable=False),  # below the source
        pa.field("place", pa.int64()),  # of a trial: which in its file, from 0
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)
SKETCHES = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("normalised", pa.string(), nullable=False),
        pa.field("shingles", pa.list_(pa.uint32()), nullable=False),
        pa.field("signature", pa.list_(pa.uint32()), nullable=False),
    ]
)
SETTINGS = b"nas-ray"  # key of the settings of sketches in the file's metadata


@dataclass(frozen=True, slots=True)
class Import:
    """An imported folder. `card` is what import.json says."""

    folder: Path
    card: Mapping[str, Any]

    @staticmethod
    def is_at(folder: Path) -> bool:
        """True for a folder that an import wrote."""
        return (folder / CARD).is_file()

    @classmethod
    def open(cls, folder: Path) -> Import:
        """Raises LemurError where it is none, or one that another version wrote."""
        try:
            card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise LemurError(f"{folder} is no folder that nas-ray lemur import finished ({error})") from error
        if card.get("format") != FORMAT:
            raise LemurError(f"{folder} has format {card.get('format')}, this version reads {FORMAT}: import it again")
        return cls(folder, card)

    def programs(self, columns: list[str] | None = None) -> pa.Table:
        """The table of programs, see `PROGRAMS`."""
        return self._read("programs", columns)

    def measurements(self, columns: list[str] | None = None) -> pa.Table:
        """The table of measurements, see `MEASUREMENTS`."""
        return self._read("measurements", columns)

    def refused(self) -> pa.Table:
        """The table of what was not taken, see `REFUSED`."""
        return self._read("refused", None)

    def sketches(self, sketcher: Sketcher) -> Sketches:
        """Those of all programs and of their networks alone; made again where stored ones have other settings.

        Raises:
            LemurError: the tables cannot be read, or this version of nas-ray gives programs other ids than the one that
                imported them.
        """
        named = self._read("sketches", ["id"])
        stored = json.loads((named.schema.metadata or {}).get(SETTINGS, b"{}")) == settings_of(sketcher)
        table = self._read("sketches", ["shingles", "signature"] if stored else ["normalised"])
        self._check_ids()
        ids = tuple(named["id"].to_pylist())
        if not stored:
            made = [sketcher.sketch(text) for text in table["normalised"].to_pylist()]
            return Sketches.of(ids, made, sketcher.permutations)
        shingles, signatures = table["shingles"].combine_chunks(), table["signature"].combine_chunks()
        return Sketches(
            ids,
            shingles.offsets.to_numpy().astype(np.int64),
            shingles.values.to_numpy(),
            signatures.values.to_numpy().reshape(len(ids), sketcher.permutations),
        )

    def datasets(self) -> list[str]:
        """The data sets that there are classification accuracies on, most rows first."""
        table = self.measurements(["task", "dataset"])
        counts = table.filter(pc.equal(table["task"], TASK)).group_by("dataset").aggregate([([], "count_all")])
        return list(counts.sort_by([("count_all", "descending")])["dataset"].to_pylist())

    def best_accuracies(self, dataset: str, epochs: int) -> dict[str, float]:
        """LEMUR's name -> best accuracy on a data set after at most `epochs` epochs; our and LEMUR's names of sets."""
        table = self.measurements(["program", "task", "dataset", "epoch", "accuracy"])
        names = pa.array([dataset, lemur_dataset(dataset)])
        chosen = table.filter(
            pc.and_(
                pc.and_(pc.equal(table["task"], TASK), pc.is_in(table["dataset"], names)),
                pc.less_equal(table["epoch"], epochs),
            )
        )
        best = chosen.group_by("program").aggregate([("accuracy", "max")])
        return dict(zip(best["program"].to_pylist(), best["accuracy_max"].to_pylist(), strict=True))

    def networks(self, accuracies: Mapping[str, float]) -> Iterator[tuple[str, str, float]]:
        """(network id, network alone, accuracy) of those programs in `accuracies` that follow the contract."""
        table = self.programs(["name", "network_id", "network", "contract"])
        table = table.filter(
            pc.and_(table["contract"], pc.is_in(table["name"], pa.array(list(accuracies), pa.string())))
        )
        for row in table.to_pylist():
            yield row["network_id"], row["network"], accuracies[row["name"]]

    def _check_ids(self) -> None:
        for row in self.programs(["id", "code"]).slice(0, PROBES).to_pylist():
            if id_of(normalise(row["code"])) != row["id"]:
                raise LemurError(
                    f"{self.folder} was imported by a version of nas-ray that gave programs other ids: import it again"
                )

    def _read(self, name: str, columns: list[str] | None) -> pa.Table:
        try:
            return pq.read_table(self.folder / f"{name}.parquet", columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise LemurError(f"{self.folder}/{name}.parquet cannot be read ({error}): import it again") from error


def settings_of(sketcher: Sketcher) -> dict[str, int]:
    """What sketches depend on."""
    return {"shingle_tokens": sketcher.shingle_tokens, "permutations": sketcher.permutations}
