"""What travels between the rooms: requests, completions, programs, and what was measured on them.

All are frozen and hold plain values only, so that they pickle small and mean the same on every node.
"""

from __future__ import annotations

from dataclasses import dataclass

from nas_ray.outcome import Outcome, Stage

Key = tuple[int, int]  # (cycle, index): a candidate's name for the whole run


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One candidate to be written. `(cycle, index)` names it for the whole run, whatever becomes of it."""

    cycle: int
    index: int  # 0 .. candidates_per_cycle - 1
    prompt: str  # as the template made it, before any chat template
    seed: int  # of the sampler, this request's own
    parent_ids: tuple[str, ...] = ()  # the elites that the prompt shows; of an edit, the parent alone
    mode: str = "full"  # "full" | "delta": a whole program, or an edit of `parent_code`
    parent_code: str = ""  # the program to be edited
    wanted: str = ""  # of an edit: the change asked for, one of `DeltaConfig.wanted`


@dataclass(frozen=True, slots=True)
class Completion:
    """What the language model answered to one request."""

    cycle: int
    index: int
    prompt: str
    seed: int
    text: str
    tokens: int  # generated
    prompt_tokens: int
    seconds: float  # from submission to the last token
    finish_reason: str  # "stop" | "length"
    engine: str  # "vllm" | "transformers"
    adapter: int  # version that wrote it; 0 = the base model


@dataclass(frozen=True, slots=True)
class Program:
    """A completion's definitions and imports, exactly as written."""

    id: str  # first 16 hex digits of the SHA-256 of `normalised`
    code: str
    normalised: str  # names alpha-renamed, comments and docstrings gone: what novelty compares
    dropped: tuple[str, ...]  # one line for each top-level statement (or run of prose) that was left out


@dataclass(frozen=True, slots=True)
class Build:
    """A program built for one input shape without training it (on the meta device wherever the program allows it)."""

    parameters: int  # trainable
    flops: int  # one forward pass of one image; a multiply-add counts 2 (torch.utils.flop_counter)
    activation_bytes: int  # outputs of all operations of one forward pass of one image, float32
    graph: str  # signature of the traced operation graph, 16 hex digits
    device: str  # "meta" | "cpu"
    seconds: float
    depth: int = 0  # most operations with weights (convolutions, matrix products) on a path from image to logits


@dataclass(frozen=True, slots=True)
class Verdict:
    """The novelty index's answer on one program."""

    novel: bool
    neighbour: str  # id of the nearest admitted entry; "" if none was similar enough to look at
    similarity: float  # Jaccard to that neighbour, verified on the shingles; 0 if none
    view: str  # "id" | "code" | "graph": which view decided; "" if novel


@dataclass(frozen=True, slots=True)
class Trial:
    """One program to be trained on one data set from one seed, and for how long.

    `epochs` rises. With more than one number the first training is for `epochs[0]`; a scheduler decides after each
    whether the program is trained again, from scratch, for the next. Each training is a `Measurement` of its own.
    """

    code: str
    dataset: str  # its name, as in the run's configuration
    seed: int
    epochs: tuple[int, ...]
    known: float | None = None  # accuracy after `epochs[0]`, where it was measured before: told to the scheduler again


@dataclass(frozen=True, slots=True)
class Measurement:
    """One evaluation's result, or why there is none."""

    outcome: Outcome
    stage: Stage
    detail: str
    error_type: str
    seconds: float  # wall time inside the evaluator, child process included
    accuracy: float | None = None  # share of the validation split, 0 .. 1
    loss: float | None = None  # mean validation cross-entropy, nats
    test_accuracy: float | None = None  # of the test split, where it was predicted too (datasets.append_test)
    test_loss: float | None = None
    curve: tuple[float, ...] = ()  # training loss, nats, at up to 64 evenly spaced steps
    train_seconds: float | None = None
    peak_memory_bytes: int | None = None  # of the child process, or of the device where it has its own memory
    device: str = ""  # "cpu" | "cuda"
    node: str = ""  # that it ran on, as Ray names it
    tier: str = ""  # of the containment that held it, "A" .. "D"; "" where it is not known
    latency_ms: float | None = None  # one forward pass of one image after training, median of several
    epochs: int = 0  # that it was trained for, or was to be
    final: bool = True  # False: a longer training of the same trial follows
    output: str = ""  # the end of what the program printed, control characters removed
