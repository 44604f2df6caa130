"""The rows that a run keeps, one frozen dataclass and one Parquet schema for each table.

In: values from the driver. Out: `CompletionRow`, `CandidateRow`, `EvaluationRow`, `CycleRow`, `NodeRow`,
`FinalRoundRow`, and the translation between rows and Arrow tables (`table_of`, `rows_of`). The dataclass is the only
definition: `schema_of` derives the Parquet columns from its annotations. A column with a default may be missing in a
file written before it existed.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar

import pyarrow as pa

from nas_ray.candidate import Completion, Measurement
from nas_ray.outcome import Outcome, Stage

OUTPUT_CHARACTERS = 2000  # of what a program printed, kept from the end

# Arrow's type for each annotation that a row may use; lists hold one of the first four.
ARROW_TYPES: dict[Any, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    datetime: pa.timestamp("us", tz="UTC"),
    Outcome: pa.string(),
    Stage: pa.string(),
}


def now() -> datetime:
    """The current time, UTC, in the microseconds that Parquet keeps."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRow:
    """One completion of the journal, written as it arrives and before anything is checked."""

    TABLE: ClassVar[str] = "completions"
    KEY: ClassVar[tuple[str, ...]] = ("cycle", "index")
    FOLDERS: ClassVar[tuple[str, ...]] = ("cycle",)

    cycle: int
    index: int
    arrival: int  # counts the completions of the run in the order in which the driver saw them
    prompt: str
    seed: int
    text: str
    tokens: int
    prompt_tokens: int
    seconds: float
    finish_reason: str
    engine: str
    adapter: int
    created: datetime = field(default_factory=now)

    @classmethod
    def of(cls, completion: Completion, arrival: int) -> CompletionRow:
        values = {column.name: getattr(completion, column.name) for column in fields(completion)}
        return cls(arrival=arrival, **values)

    @property
    def completion(self) -> Completion:
        return Completion(**{column.name: getattr(self, column.name) for column in fields(Completion)})


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateRow:
    """The final word on one candidate: exactly one for each completion that a cycle asked for."""

    TABLE: ClassVar[str] = "candidates"
    KEY: ClassVar[tuple[str, ...]] = ("cycle", "index")
    FOLDERS: ClassVar[tuple[str, ...]] = ("cycle",)

    run: str
    cycle: int
    index: int
    outcome: Outcome
    stage: Stage  # where it ended; for a valid candidate the last one, train
    arrival: int = 0
    id: str = ""  # "" where no program could be read from the completion
    seed: int = 0
    adapter: int = 0  # version that wrote it; 0 = the base model
    engine: str = ""
    prompt: str = ""
    completion_tokens: int = 0
    prompt_tokens: int = 0
    generation_seconds: float = 0.0
    finish_reason: str = ""
    code: str = ""  # the program as written; the raw completion where there is no program
    dropped: tuple[str, ...] = ()
    detail: str = ""
    error_type: str = ""
    seconds: float = 0.0  # checks and evaluation together, wall time
    duplicate_of: str = ""  # id of the earlier candidate
    similarity: float = 0.0  # Jaccard, to `duplicate_of` or to the nearest neighbour
    duplicate_view: str = ""  # "id" | "code" | "graph"
    novel: bool = False  # every novelty view that the run uses let it pass
    parameters: int | None = None
    flops: int | None = None
    activation_bytes: int | None = None
    graph: str = ""
    accuracy: float | None = None  # validation, share 0 .. 1
    loss: float | None = None  # validation, nats
    parent_ids: tuple[str, ...] = ()  # the elites shown in its prompt; of an edit, the parent
    mode: str = "full"  # "full" | "delta" | "fallback": a whole program in place of the edit that was asked for
    wanted: str = ""  # of an edit: the change that the prompt asked for
    patch: str = ""  # of an edit: the answer's blocks, which made `code` of the parent's
    depth: int | None = None  # see `Build.depth`
    latency_ms: float | None = None
    epochs: int | None = None  # that its accuracy was reached after
    created: datetime = field(default_factory=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRow:
    """One training of one candidate under one protocol on one data set, with a number or with the reason for none."""

    TABLE: ClassVar[str] = "evaluations"
    KEY: ClassVar[tuple[str, ...]] = ("id", "dataset", "protocol", "seed", "epochs", "split", "purpose")
    FOLDERS: ClassVar[tuple[str, ...]] = ("dataset", "cycle")

    id: str
    cycle: int
    index: int
    dataset: str
    protocol: str  # `ProtocolConfig.digest`, of the protocol with these epochs
    seed: int
    epochs: int
    accuracy: float | None  # validation, share 0 .. 1
    loss: float | None  # validation, nats
    outcome: Outcome = Outcome.VALID
    detail: str = ""
    error_type: str = ""
    curve: tuple[float, ...] = ()  # training loss, nats
    parameters: int | None = None
    flops: int | None = None
    train_seconds: float | None = None
    seconds: float = 0.0
    peak_memory_bytes: int | None = None
    device: str = ""
    node: str = ""
    tier: str = ""  # of the containment that held it, "A" .. "D"; "" where it is not known
    latency_ms: float | None = None  # one forward pass of one image, median
    split: str = "validation"  # that it is graded on; "test" in a final round only
    purpose: str = "search"  # "search" | "transfer" | "final" | "reliability"
    output: str = ""  # the end of what the program printed
    created: datetime = field(default_factory=now)

    @classmethod
    def of(cls, measured: Measurement, **rest: Any) -> EvaluationRow:
        """The row of a measurement; `rest` is what that does not say: id, cycle, index, dataset, protocol, seed, ..."""
        said = {column.name: getattr(measured, column.name) for column in fields(cls) if hasattr(measured, column.name)}
        return cls(**{**said, "output": measured.output[-OUTPUT_CHARACTERS:], **rest})


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleRow:
    """One finished cycle: its funnel, where its time went, what it selected and what that taught the generator."""

    TABLE: ClassVar[str] = "cycles"
    KEY: ClassVar[tuple[str, ...]] = ("cycle",)
    FOLDERS: ClassVar[tuple[str, ...]] = ()

    cycle: int
    generated: int = 0
    parsed: int = 0
    contract: int = 0
    built: int = 0
    novel: int = 0
    trained: int = 0
    elite: int = 0
    top_up: int = 0
    generate_seconds: float = 0.0
    check_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    finetune_seconds: float = 0.0
    waiting_seconds: float = 0.0
    total_seconds: float = 0.0
    elite_ids: tuple[str, ...] = ()
    top_up_ids: tuple[str, ...] = ()
    training_ids: tuple[str, ...] = ()
    held_out_ids: tuple[str, ...] = ()
    adapter: int = 0  # version that the cycle's fine-tuning made, or the one it went on with
    nll_before_train: tuple[float, ...] = ()  # nats a program, in the order of training_ids
    nll_after_train: tuple[float, ...] = ()
    nll_before_held_out: tuple[float, ...] = ()  # in the order of held_out_ids
    nll_after_held_out: tuple[float, ...] = ()
    tokens: int = 0  # generated in the cycle
    tokens_per_second: float = 0.0
    created: datetime = field(default_factory=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """What keeps candidates in on one node of the cluster, as a probe found by trying; another row if that changes."""

    TABLE: ClassVar[str] = "nodes"
    KEY: ClassVar[tuple[str, ...]] = ("node", "walls")
    FOLDERS: ClassVar[tuple[str, ...]] = ()

    node: str  # as Ray names it, and as evaluations do
    walls: str  # for a person
    tier: str = ""  # "A" (all walls) .. "D" (limits only)
    host: str = ""
    address: str = ""
    missing: tuple[str, ...] = ()  # what a better tier needs, with the reason why it is not there
    created: datetime = field(default_factory=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalRoundRow:
    """One look at the test split: what is trained for it. Kept before the first training."""

    TABLE: ClassVar[str] = "final_rounds"
    KEY: ClassVar[tuple[str, ...]] = ("round",)
    FOLDERS: ClassVar[tuple[str, ...]] = ()

    round: int  # 0, 1, ...
    ids: tuple[str, ...]  # the finalists, best of the leaderboard first
    epochs: int
    seeds: tuple[int, ...]
    datasets: tuple[str, ...]
    test_images: tuple[int, ...]  # in the order of `datasets`
    created: datetime = field(default_factory=now)


Row = CompletionRow | CandidateRow | EvaluationRow | CycleRow | NodeRow | FinalRoundRow
AnyRow = TypeVar("AnyRow", bound=Row)


ROWS: tuple[type[Row], ...] = (CompletionRow, CandidateRow, EvaluationRow, CycleRow, NodeRow, FinalRoundRow)
# table -> column -> annotation; resolved once, because it is asked for with every row that is written
ANNOTATIONS: dict[str, dict[str, Any]] = {
    row.TABLE: {column.name: typing.get_type_hints(row)[column.name] for column in fields(row)} for row in ROWS
}


def _arrow_field(name: str, annotation: Any) -> pa.Field:
    if isinstance(annotation, types.UnionType):  # X | None
        value = next(part for part in typing.get_args(annotation) if part is not types.NoneType)
        return pa.field(name, ARROW_TYPES[value])
    if typing.get_origin(annotation) is tuple:
        return pa.field(name, pa.list_(ARROW_TYPES[typing.get_args(annotation)[0]]), nullable=False)
    return pa.field(name, ARROW_TYPES[annotation], nullable=False)


def schema_of(row: type[AnyRow]) -> pa.Schema:
    """The columns of a table's files.

    What the folder names say already (`row.FOLDERS`) is not repeated inside: any reader of Hive-style folders adds
    those columns itself, and some refuse files that hold them too, in another type.
    """
    columns = [(name, kind) for name, kind in ANNOTATIONS[row.TABLE].items() if name not in row.FOLDERS]
    return pa.schema([_arrow_field(name, kind) for name, kind in columns])


def table_of(rows: Sequence[AnyRow]) -> pa.Table:
    """Rows of one kind and one folder as an Arrow table; at least one row."""
    schema = schema_of(type(rows[0]))
    return pa.table({name: [getattr(row, name) for row in rows] for name in schema.names}, schema=schema)


def rows_of(table: pa.Table, row: type[AnyRow], folders: dict[str, str]) -> list[AnyRow]:
    """The rows of a table read from a folder whose name says `folders` (column -> value as text).

    Raises ValueError where a column without a default is missing; columns that this version does not know are left out.
    """
    columns: dict[str, list[Any]] = {}
    for column in fields(row):
        annotation = ANNOTATIONS[row.TABLE][column.name]
        if column.name in folders:
            columns[column.name] = [annotation(folders[column.name])] * table.num_rows
        elif column.name in table.column_names:
            columns[column.name] = _values(table.column(column.name).to_pylist(), annotation)
        elif column.default is MISSING and column.default_factory is MISSING:
            raise ValueError(f"column {column.name!r} is missing")
    return [row(**dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]


def _values(values: list[Any], annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) is tuple:
        return [tuple(value) for value in values]
    if annotation in (Outcome, Stage):
        return [annotation(value) for value in values]
    return values
