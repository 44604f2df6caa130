"""Is all ready for a run? Every part is looked at, and everything that is wrong is found in one go.

    nas-ray doctor --config examples/cifar10_7b.yaml
    python -m jobs.doctor --config examples/cifar10_7b.yaml --deep

In: a configuration. Out: one line for each finding (ok, warning or problem; what was found; what to do), or JSON. Exit
code 0, or 1 where there is a problem. It takes seconds and loads no weights; with --deep every part also does its work
once: the engine writes a program, LoRA trains for a step, the adapter is swapped in, a program is evaluated.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import ray
import typer
from rich.text import Text

from actors.generator import GeneratorHandle
from actors.nodes import NodeProbes
from actors.trial_pool import count_places
from jobs.cli import explain
from jobs.connection import connect
from jobs.containment import Unsafe, lower_floor
from jobs.finetune import finetune
from jobs.nodes import ANSWER_SECONDS, BEST
from jobs.rooms import MODEL_SECONDS
from jobs.tables import open_console, percent
from nas_ray.adapters import folder_within, remove_folder
from nas_ray.config import DatasetConfig, RunConfig
from nas_ray.config_file import ConfigError, load_config
from nas_ray.datasets import Dataset, in_shape, load_dataset
from nas_ray.generation_requests import RequestWriter
from nas_ray.grammar import sample_program
from nas_ray.judgement import judge_program
from nas_ray.lora_targets import choose_targets
from nas_ray.machine import (
    check_folder,
    check_gpus,
    check_memory,
    check_packages,
    check_places,
    check_threads,
)
from nas_ray.nodes import name_node
from nas_ray.outcome import Outcome
from nas_ray.program import read_program
from nas_ray.readiness import (
    Finding,
    ModelFacts,
    adapter_parameters,
    check_language_model,
    check_prompt,
    describe_dataset,
)
from nas_ray.replay import Pair
from nas_ray.sandbox import Sandbox
from nas_ray.store.place import open_place

STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}
ENGINE_SECONDS = 180.0  # for vLLM's import on a busy machine
Found = Callable[[], Iterable[Any]]


def doctor_command(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML file; else all defaults.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change one key: model.gpus=1.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Short for --set model.path=: seed, a folder or a hub id.")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join; else RAY_ADDRESS, or a local one.")] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Also let every part do its work once: minutes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object for each finding.")] = False,
    unsafe: Unsafe = False,
) -> None:
    """Check everything that a long run needs before it starts: packages, model, data, cluster, walls.

    Example:  nas-ray doctor --config examples/quickstart.yaml --deep
    """
    changes = [*(overrides or []), *([f"model.path={model}"] if model else [])]
    console = open_console()
    counts: Counter[str] = Counter()
    for finding in diagnose(config, changes, address, deep, unsafe):
        counts[finding.verdict] += 1
        if as_json:
            typer.echo(json.dumps(asdict(finding)))
        else:
            console.print(_line(finding), soft_wrap=True)
    if not as_json:
        typer.echo(f"problems: {counts['problem']}, warnings: {counts['warning']}, ok: {counts['ok']}")
    if counts["problem"]:
        raise typer.Exit(1)


def _line(finding: Finding) -> Text:
    text = Text(f"{finding.verdict:<8}", style=STYLES[finding.verdict])
    text.append(f"{finding.subject:<12}{finding.found}", style="not bold default")
    return text.append(f"\n{'':20}{finding.advice}" if finding.advice else "", style="not bold default")


def diagnose(
    source: Path | None, changes: list[str], address: str | None, deep: bool, unsafe: bool
) -> Iterator[Finding]:
    """Every finding as it is made; the order is that of a search."""
    try:
        config = lower_floor(load_config(source, changes), unsafe)
    except ConfigError as error:
        yield from (Finding("config", "problem", mistake) for mistake in error.mistakes)
        return
    yield from _look("packages", check_packages)
    yield from _look("threads", check_threads)
    facts: ModelFacts | None = None
    for found in _look("model", lambda: check_language_model(config, unpack=deep)):
        if isinstance(found, ModelFacts):
            facts = found
        else:
            yield found
    first: Dataset | None = None
    for one in (config.dataset, *config.also):
        for found in _look("data set", partial(_load, one, config)):
            first = first or (found if isinstance(found, Dataset) else None)
            yield describe_dataset(found) if isinstance(found, Dataset) else found
    if facts and first:
        yield from _look("prompt", lambda: check_prompt(config, first, facts.tokenizer))
    yield from _look("run folder", lambda: check_folder(config, _adapter_bytes(config, facts)))
    yield from _look("gpus", lambda: check_gpus(config, facts.parameters if facts else 0))
    yield from _look("engine", lambda: _check_engine(config, known=facts is not None))
    yield from _look("ray", lambda: _check_cluster(config, address, facts, first, deep))


def _look(subject: str, check: Found) -> Iterator[Any]:
    """What a check finds; what it raises is a problem like any other."""
    try:
        yield from check()
    except Exception as error:
        yield Finding(subject, "problem", explain(error) or f"{type(error).__name__}: {error}")


def _load(one: DatasetConfig, config: RunConfig) -> list[Dataset]:
    return [load_dataset(one, config.protocol.resolution)]


def _adapter_bytes(config: RunConfig, facts: ModelFacts | None) -> int:
    if facts is None or not config.finetune.enabled:
        return 0
    return 4 * adapter_parameters(
        facts.outline, choose_targets(facts.outline, config.finetune.targets), config.finetune.rank
    )


def _check_engine(config: RunConfig, known: bool) -> Iterator[Finding]:
    """Which engine would run; vLLM is imported in a process of its own, because it takes a process over."""
    if config.model.engine == "transformers":
        yield Finding("engine", "ok", "transformers, as configured")
        return
    script = "import sys; from actors.engines import vllm_refusal; print(vllm_refusal(sys.argv[1] or None))"
    command = [sys.executable, "-c", script, config.model.path if known else ""]
    done = subprocess.run(command, capture_output=True, text=True, timeout=ENGINE_SECONDS, check=False)
    last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
    refusal = last if done.returncode else (done.stdout.strip().splitlines() or [""])[-1]
    if not refusal:
        yield Finding("engine", "ok", "vllm imports" + (", and takes adapters for this model" if known else ""))
    elif config.model.engine == "vllm":
        yield Finding("engine", "problem", refusal, "set model.engine to transformers or auto")
    else:
        yield Finding("engine", "warning", f"transformers, which is slower: {refusal}", "install vLLM if you can")


def _check_cluster(
    config: RunConfig, address: str | None, facts: ModelFacts | None, dataset: Dataset | None, deep: bool
) -> Iterator[Finding]:
    """Ray, its nodes, their memory and their walls; with `deep` the work of every part."""
    with connect(address):
        nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
        trial = {"CPU": config.resources.evaluator_cpus, "GPU": config.resources.evaluator_gpus}
        room = sum(count_places(trial, has) for has in nodes.values())
        evaluators = min(room, config.resources.evaluators or room)
        totals = {kind: sum(has.get(kind, 0.0) for has in nodes.values()) for kind in ("CPU", "GPU")}
        yield Finding(
            "ray", "ok", f"{ray.__version__}; nodes {len(nodes)}, CPUs {totals['CPU']:g}, GPUs {totals['GPU']:g}; "
            f"evaluations at once: {evaluators}",
        )  # fmt: skip
        wanted = {
            "the generator": {"CPU": 1.0 if config.model.gpus else 0.0, "GPU": config.model.gpus},
            "an evaluation": trial,
            "a fine-tune worker": {"CPU": config.finetune.cpus, "GPU": config.finetune.gpus},
        }
        yield from check_places(wanted, nodes, grows=bool(address))
        if facts:
            yield from _look("memory", lambda: check_memory(config, facts.parameters, evaluators))
        yield from _look("walls", lambda: _check_walls(config))
        if deep and facts and dataset:
            yield from _look("deep", lambda: _work(config, facts, dataset))
        elif deep:
            yield Finding("deep", "problem", "nothing was tried: the model or the data set is not there")


def _check_walls(config: RunConfig) -> Iterator[Finding]:
    floor = config.containment.floor
    probes = NodeProbes(gpus=config.resources.evaluator_gpus > 0)
    for row in probes.wait(ANSWER_SECONDS):
        found = f"node {name_node(row)}: {row.walls}"
        reasons = "; ".join(row.missing) or "no reason given"
        if row.tier > floor:
            found += f"; the run asks for tier {floor} or better"
            yield Finding(
                "walls", "problem", found, f"missing: {reasons}. Give it, or pass --unsafe for code you trust"
            )
        elif row.tier > BEST:
            yield Finding("walls", "warning", found, f"missing for tier {BEST}: {reasons}")
        else:
            yield Finding("walls", "ok", found)
    for name in probes.unanswered:
        yield Finding(
            "walls", "warning", f"node {name} has not answered within {ANSWER_SECONDS:g} s", "look at its load"
        )


def _work(config: RunConfig, facts: ModelFacts, dataset: Dataset) -> Iterator[Finding]:
    """Every part does its work once, on this configuration's settings: generator, fine-tune, swap, evaluation."""
    _, channels, height, width = in_shape(dataset)
    code = sample_program(random.Random(0), (channels, height, width), dataset.classes, config.budget.parameters)
    request = RequestWriter(config, dataset, facts.tokenizer).write(0, ())[0]
    with closing(GeneratorHandle(config)) as generator:
        started = generator.ready(MODEL_SECONDS)
        (done,) = generator.stream([request])
        yield Finding(
            "generator", "ok", f"{started.engine} started in {started.start_seconds:.0f} s and wrote a completion of "
            f"{done.tokens} tokens in {done.seconds:.1f} s ({done.tokens / done.seconds:.1f} tokens/s, alone)",
        )  # fmt: skip
        if config.finetune.enabled:
            yield from _look("fine-tune", lambda: _train(config, request.prompt, code, generator))
    yield from _look("evaluation", lambda: _evaluate(config, dataset, code))


def _train(config: RunConfig, prompt: str, code: str, generator: GeneratorHandle) -> Iterator[Finding]:
    once = config.model_copy(update={"finetune": config.finetune.model_copy(update={"epochs": 1})})
    adapters = folder_within(open_place(config.folder).uri, f".doctor-{uuid.uuid4().hex[:8]}")
    try:
        report = finetune([Pair("doctor", prompt, code, 0, 0.0)], [], once, 1, None, adapters, config.seed)
        if report.reason:
            yield Finding("fine-tune", "problem", report.reason)
            return
        generator.swap(report.adapter, 1)
        generator.synchronise()
        yield Finding(
            "fine-tune", "ok", f"one step of LoRA on {report.tokens} tokens in {report.train_seconds:.1f} s "
            f"({report.seconds:.0f} s with the start of its worker); the generator took the adapter",
        )  # fmt: skip
    finally:
        remove_folder(adapters)


def _evaluate(config: RunConfig, dataset: Dataset, code: str) -> Iterator[Finding]:
    device = "cuda" if config.resources.evaluator_gpus > 0 else "cpu"
    with Sandbox(device, dataset, config.protocol, config.budget, containment=config.containment) as sandbox:
        judged = judge_program(read_program(code), sandbox, dataset)
    found = f"a program of the grammar in {judged.seconds:.1f} s: {judged.outcome}"
    if judged.outcome is Outcome.VALID:
        yield Finding("evaluation", "ok", f"{found}, accuracy {percent(judged.accuracy)}")
    else:
        yield Finding("evaluation", "problem", f"{found} ({judged.detail})", "look at the limits in the section budget")


if __name__ == "__main__":
    from jobs.cli import main

    main(["doctor", *sys.argv[1:]])
