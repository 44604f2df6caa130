"""The configuration of a run: what a YAML file may say, with defaults, units and limits.

In: plain values (`nas_ray/config_file.py` reads them). Out: a frozen, fully checked `RunConfig`. Every default is the
laptop's: digits, the seed model, two cores.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Share = float  # between 0 and 1


class Section(BaseModel):
    """Base of every part of a configuration: frozen, and an unknown key is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class DatasetConfig(Section):
    """Which images are learned, and how the validation split is taken from their training set."""

    name: str = Field(
        "digits", description="digits, fashion-mnist, mnist, cifar10, cifar100, svhn, folder, or a plug-in's name"
    )
    root: str | None = Field(None, description="folder with the data set's files; each data set has a usual place")
    validation_fraction: Share = Field(
        0.2, gt=0, lt=1, description="share of the training set that candidates are graded on"
    )
    train_limit: int | None = Field(None, ge=1, description="use at most this many training images (after the split)")
    validation_limit: int | None = Field(None, ge=1, description="use at most this many validation images")
    split_seed: int = Field(0, ge=0, description="seed of the split; the same for every candidate of a run")


class ModelConfig(Section):
    """The language model that writes the programs, and the engine that runs it."""

    path: str = Field("seed", description="'seed' (the small model in the package), a folder, or a Hugging Face id")
    engine: Literal["auto", "vllm", "transformers"] = Field(
        "auto", description="auto: vllm where it imports, else transformers"
    )
    style: Literal["auto", "chat", "plain"] = Field(
        "auto", description="auto: chat where the tokenizer has a chat template"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: float32 on a CPU, bfloat16 on a GPU"
    )
    context_tokens: int = Field(512, ge=64, description="longest prompt plus completion, tokens")
    concurrent_requests: int = Field(32, ge=1, description="programs written at once by the engine")
    gpus: float = Field(0.0, ge=0, description="GPUs of the generator actor")
    gpu_memory_share: Share = Field(0.85, gt=0, le=1, description="share of the GPU's memory that vLLM may take")
    cpu_cache_gib: float = Field(1.0, gt=0, description="key-value cache of vLLM's CPU build, GiB")


class GenerationConfig(Section):
    """How programs are asked for and sampled."""

    template: str = Field(
        "auto",
        description="auto, plain (for the seed model), instruct (for chat models), base (for models that continue a "
        "text), or a path to a template of your own",
    )
    stop: tuple[str, ...] = Field(
        (), description="texts at which a completion ends, themselves left out; beside the model's own end of text"
    )
    temperature: float = Field(
        1.0, gt=0, le=5, description="of sampling; fine-tuning is at 1, so another drifts by itself"
    )
    top_p: Share = Field(1.0, gt=0, le=1, description="sample from the likeliest tokens of this total probability")
    top_k: int = Field(0, ge=0, description="0: no limit")
    max_tokens: int = Field(320, ge=16, description="longest completion, tokens")
    examples: int = Field(
        2, ge=0, description="earlier elites shown in each prompt, where the template has room for them"
    )
    full: float = Field(1.0, ge=0, description="weight of candidates that are written as whole programs")
    delta: float = Field(
        0.0, ge=0, description="weight of candidates that are written as an edit of an earlier one (section delta)"
    )

    @model_validator(mode="after")
    def _writes_something(self) -> GenerationConfig:
        if self.full + self.delta == 0:
            raise ValueError("full and delta are both 0: give one of them a weight")
        return self


class DeltaConfig(Section):
    """How candidates are written as edits of a parent, where `generation.delta` has a weight."""

    format: Literal["search_replace", "unified_diff"] = Field(
        "search_replace", description="how an answer says its edit; applied strictly in either"
    )
    template: str = Field("auto", description="auto, plain, instruct, or a path to a template of your own")
    parents: Literal["rank", "tournament", "cells"] = Field(
        "cells",
        description="how a parent is chosen among all novel valid candidates: by rank of accuracy, as best of a few "
        "drawn ones, or as the best of a drawn cell of size and depth (quality-diversity)",
    )
    tournament: int = Field(4, ge=1, description="candidates drawn for each tournament")
    wanted: tuple[Literal["accuracy", "smaller", "larger", "different"], ...] = Field(
        ("accuracy",), min_length=1, description="the change that a prompt asks for, one of these at random"
    )
    fallback: bool = Field(
        False, description="take a whole program in place of an edit; its mode is then recorded as fallback"
    )


class ProtocolConfig(Section):
    """The recipe that every candidate of a run is trained by."""

    kind: Literal["fixed", "candidate"] = Field(
        "fixed",
        description="candidate: a program trains itself, by the train_setup and learn that it must then have; "
        "optimiser and weight_decay are its own",
    )
    epochs: int = Field(1, ge=1)
    batch_size: int = Field(32, ge=1)
    optimiser: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(0.01, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd only")
    weight_decay: float = Field(0.0, ge=0)
    augmentation: tuple[Literal["flip", "crop"], ...] = Field(
        (), description="applied in batches on the training device"
    )
    resolution: int | None = Field(
        None, ge=4, description="side in pixels that images are resized to, once; none: as they are"
    )
    precision: Literal["float32", "bfloat16"] = "float32"
    fraction: Share = Field(1.0, gt=0, le=1, description="share of the training split that is used")
    seed: int = Field(0, ge=0, description="of initialisation, order and augmentation; the same for every candidate")

    @property
    def digest(self) -> str:
        """Eight hex digits that change with any part of the recipe but the seed."""
        unsaid = {"seed", "kind"} if self.kind == "fixed" else {"seed"}  # digests from before there were two kinds hold
        recipe = self.model_dump_json(exclude=unsaid)
        return hashlib.sha256(recipe.encode()).hexdigest()[:8]

    def vary(self, *, seed: int | None = None, epochs: int | None = None) -> ProtocolConfig:
        """The same recipe from another seed, or for other epochs, which give it another digest; None: as it is."""
        return self.model_copy(
            update={
                "seed": self.seed if seed is None else seed,
                "epochs": self.epochs if epochs is None else epochs,
            }
        )


class BudgetConfig(Section):
    """What one candidate may take; more ends it with an outcome that names the limit."""

    parameters: int = Field(500_000, ge=1)
    flops: float = Field(1e9, gt=0, description="one forward pass of one image")
    memory_gib: float = Field(2.0, gt=0, description="of the child process that trains it")
    gpu_memory_gib: float | None = Field(None, gt=0, description="of a GPU, where it trains on one; none: all of it")
    build_seconds: float = Field(10.0, gt=0)
    train_seconds: float = Field(60.0, gt=0, description="wall time of one evaluation")
    latency_ms: float | None = Field(
        None, gt=0, description="one forward pass of one image on the evaluator's device, median; none: no limit"
    )


class EvaluationConfig(Section):
    """How often and how long a candidate is trained before it has its accuracy."""

    seeds: int = Field(
        1, ge=1, description="trainings with protocol.seed, protocol.seed + 1, ...; accuracy is their mean"
    )
    scheduler: Literal["none", "asha"] = Field(
        "none", description="asha: train for grace_epochs first, and longer (up to protocol.epochs) only what is ahead"
    )
    grace_epochs: int = Field(1, ge=1, description="of asha: epochs that every candidate gets")
    reduction_factor: int = Field(
        3, ge=2, description="of asha: the best one in so many goes on, for so many times the epochs"
    )


class ContainmentConfig(Section):
    """Behind which walls candidates run, and what they may take there."""

    floor: Literal["A", "B", "C", "D"] = Field(
        "B",
        description="weakest tier that a node may have to run candidates (docs/containment.md); D, which --unsafe "
        "sets, is no wall at all",
    )
    screen: Literal["auto", "always", "never"] = Field(
        "auto",
        description="refuse a program for the imports and calls that reading it finds; auto: where the floor is C or D",
    )
    threads: int = Field(64, ge=1, description="of a candidate, those of the evaluator not counted")
    scratch_mib: int = Field(512, ge=2, description="in its working folder; half of it in one file")
    scratch_files: int = Field(10_000, ge=1, description="in its working folder")
    output_mib: int = Field(256, ge=1, description="printed; the last 64 KiB are kept")

    @property
    def screens(self) -> bool:
        """True where programs are refused for what reading them finds."""
        return self.screen == "always" or (self.screen == "auto" and self.floor in "CD")

    @property
    def file_bytes(self) -> int:
        """Longest file of a candidate."""
        return self.scratch_mib * (1 << 20) // 2


class NoveltyConfig(Section):
    """When a program counts as seen before."""

    tau: Share = Field(
        0.9, gt=0, le=1, description="a Jaccard similarity from here on is a duplicate; 1: exact duplicates only"
    )
    permutations: int = Field(256, ge=16, description="of MinHash")
    shingle_tokens: int = Field(10, ge=1, description="length of a shingle")
    miss_rate: Share = Field(0.01, gt=0, lt=1, description="share of pairs at tau that the LSH bands may overlook")
    graph: bool = Field(True, description="also refuse programs whose traced operation graph was seen before")
    corpus: str | None = Field(
        None,
        description="programs that count as seen before the first cycle: a folder of .py files, or what "
        "`nas-ray lemur import` wrote",
    )
    corpus_measured_on: str | None = Field(
        None, description="data set whose measurements rank the corpus (corpus_examples, corpus_pairs); none: the run's"
    )
    corpus_examples: int = Field(
        0,
        ge=0,
        description="the corpus's best so many programs serve as examples, beside the elites, and as the first parents",
    )
    corpus_pairs: int = Field(
        0, ge=0, description="the corpus's best so many programs join the fine-tunes, as if of a cycle before the first"
    )

    @model_validator(mode="after")
    def _has_its_corpus(self) -> NoveltyConfig:
        if self.corpus is None and (self.corpus_examples or self.corpus_pairs):
            raise ValueError("corpus_examples and corpus_pairs are taken from a corpus: say where it is in corpus")
        return self


class SelectionConfig(Section):
    """Which valid, novel candidates are elites."""

    threshold: Share | None = Field(None, ge=0, le=1, description="fixed accuracy bar")
    quantile: Share | None = Field(0.25, gt=0, le=1, description="rho: the best share of a cycle's valid candidates")
    goals: tuple[Literal["accuracy", "parameters", "flops", "latency"], ...] = Field(
        ("accuracy",),
        min_length=1,
        description="with more than accuracy, the best share is taken in the order of Pareto fronts over these goals",
    )
    top_up_to: int = Field(0, ge=0, description="fill the training set up to this many programs a cycle; 0: never")
    top_up_threshold: Share = Field(
        0.0, ge=0, le=1, description="accuracy bar of the top-ups; they are never counted as elites"
    )

    @model_validator(mode="after")
    def _has_a_bar(self) -> SelectionConfig:
        if self.threshold is None and self.quantile is None:
            raise ValueError("give threshold, quantile or both: without a bar every valid candidate would be an elite")
        if self.goals[0] != "accuracy" or len(set(self.goals)) != len(self.goals):
            raise ValueError(f"goals is {list(self.goals)}: accuracy comes first, and each goal once")
        return self


class FinetuneConfig(Section):
    """How the elites teach the generator."""

    enabled: bool = Field(True, description="false: the generator never learns, as a control")
    rank: int = Field(16, ge=1, description="of LoRA")
    alpha: int = Field(32, ge=1, description="of LoRA; its updates are scaled by alpha / rank")
    dropout: Share = Field(0.0, ge=0, lt=1)
    targets: tuple[str, ...] = Field(
        ("auto",),
        description="layers that LoRA adapts, by their names, as in [q_proj, v_proj]; auto: the linear layers of "
        "attention and MLP, found in the model",
    )
    epochs: int = Field(3, ge=1)
    batch_size: int = Field(8, ge=1, description="programs per optimiser step, over all workers")
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    start: Literal["continue", "fresh"] = Field("continue", description="from the last adapter, or from the base model")
    replay: Literal["all", "last", "fraction"] = Field(
        "last", description="which earlier cycles' elites are trained on again"
    )
    replay_last: int = Field(3, ge=1, description="cycles, this one included, with replay: last")
    replay_fraction: Share = Field(0.5, ge=0, le=1, description="share of earlier elites, with replay: fraction")
    held_out: Share = Field(
        0.2, ge=0, lt=1, description="share of the elites kept out of training, to measure memorising"
    )
    workers: int = Field(1, ge=1, description="data-parallel workers")
    cpus: float = Field(0.0, ge=0, description="per worker; 0: it takes the cores of the evaluators, idle at that time")
    gpus: float = Field(0.0, ge=0, description="per worker")
    attempts: int = Field(3, ge=1, description="tries after a lost worker or node before the cycle goes on without")

    @field_validator("targets", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class ResourceConfig(Section):
    """What evaluation asks of the cluster."""

    evaluator_cpus: float = Field(1.0, gt=0, description="per trial")
    evaluator_gpus: float = Field(0.0, ge=0, description="per trial; a fraction shares a GPU")
    evaluators: int | None = Field(None, ge=1, description="trials at once; none: as many as the cluster can place")
    in_flight: int | None = Field(
        None,
        ge=1,
        description="candidates asked for but not finished, at which generation stops asking; "
        "none: what the generator writes at once and two for each evaluator",
    )
    builders: int = Field(1, ge=1, description="processes that build programs on the meta device")
    place_seconds: float = Field(
        120.0, gt=0, description="without a free place for a trial for so long, the run ends with an error"
    )
    retries: int = Field(3, ge=0, description="of an evaluation lost to a dead worker or node")


class RunConfig(Section):
    """One search."""

    name: str = Field(
        "search", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="first part of the run folder's name"
    )
    folder: str = Field("runs", description="where run folders are made: a path, s3://... or gs://...")
    seed: int = Field(0, ge=0, description="of generation and fine-tuning")
    cycles: int = Field(3, ge=1)
    candidates_per_cycle: int = Field(16, ge=1, description="programs written, whatever becomes of them")
    dataset: DatasetConfig = DatasetConfig()
    also: tuple[DatasetConfig, ...] = Field(
        (), description="further data sets: a candidate's accuracy is then its mean over all of them"
    )
    model: ModelConfig = ModelConfig()
    generation: GenerationConfig = GenerationConfig()
    delta: DeltaConfig = DeltaConfig()
    protocol: ProtocolConfig = ProtocolConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    budget: BudgetConfig = BudgetConfig()
    containment: ContainmentConfig = ContainmentConfig()
    novelty: NoveltyConfig = NoveltyConfig()
    selection: SelectionConfig = SelectionConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    resources: ResourceConfig = ResourceConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> RunConfig:
        problems = []
        if self.generation.max_tokens >= self.model.context_tokens:
            problems.append(
                f"generation.max_tokens ({self.generation.max_tokens}) must be smaller than "
                f"model.context_tokens ({self.model.context_tokens}), which holds the prompt too"
            )
        if (self.resources.in_flight or math.inf) < (self.resources.evaluators or 1):
            problems.append(
                f"resources.in_flight ({self.resources.in_flight}) must be at least "
                f"resources.evaluators ({self.resources.evaluators}), or evaluators would stand idle"
            )
        names = [self.dataset.name, *(dataset.name for dataset in self.also)]
        if len(set(names)) < len(names):
            problems.append(f"also names a data set twice: {', '.join(names)}; each may be there once")
        if self.evaluation.scheduler == "asha" and self.evaluation.grace_epochs >= self.protocol.epochs:
            problems.append(
                f"evaluation.grace_epochs ({self.evaluation.grace_epochs}) must be less than protocol.epochs "
                f"({self.protocol.epochs}) with evaluation.scheduler asha, or there is nothing to stop early"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self
