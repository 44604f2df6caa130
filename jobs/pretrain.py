"""Make the seed model: train a tiny Llama on programs of the random grammar, from nothing, on a CPU.

    python -m jobs.pretrain --out runs/seed_model --minutes 25 --seed 0   # as many steps as fit, and recorded
    python -m jobs.pretrain --out runs/seed_model --steps 12000 --seed 0  # same steps and seed, same model
    python -m jobs.pretrain --measure nas_ray/seed_model                  # validity and accuracy of its programs

The folder holds a loadable model from the first checkpoint on, so it can be used while the training goes on.
"""

import json
import os
import random
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas_ray.deltas import DIVIDER, REPLACE, SEARCH, WANTED
from nas_ray.grammar import (
    MISTAKES,
    prompt,
    sample_document,
    sample_drill_document,
    sample_edit_document,
    sample_program,
)
from nas_ray.model_folder import PRETRAINING_RECORD
from nas_ray.threads import PASSIVE_THREADS

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from nas_ray.language_model import Document, Size

CALIBRATION_STEPS = 40
# What every edit holds, one token each.
EDIT_WORDS = (
    *(f"{marker}\n" for marker in (SEARCH, DIVIDER, REPLACE)),
    "# edit this: accuracy ",
    " %, ",
    " parameters; wanted: ",
    *(f"{words}\n" for words in WANTED.values()),
)


def documents(seed: int, mistakes: float, deltas: float = 0.0, drills: float = 0.0) -> "Iterator[Document]":
    """Endless fresh (prompt, answer) documents, the same for the same seed.

    A share `deltas` of them are edits, a share `drills` exercises in quoting, the rest whole programs.
    """
    rng = random.Random(seed)
    while True:
        kind = rng.random() if deltas + drills > 0 else 1.0  # without both, nothing is drawn for them
        if kind < drills:
            yield sample_drill_document(rng)
        else:
            yield (sample_edit_document if kind < drills + deltas else sample_document)(rng, mistakes=mistakes)


def pretrain(
    out: Path,
    *,
    minutes: float = 25.0,
    steps: int | None = None,
    seed: int = 0,
    mistakes: float = MISTAKES,
    deltas: float = 0.0,
    drills: float = 0.0,
    threads: int = 2,
    checkpoint_minutes: float = 3.0,
    size: "Size | None" = None,
    tokenizer_documents: int = 20_000,
    start: Path | None = None,
    learning_rate: float = 3e-3,
) -> Path:
    """Train a seed model and return its folder, which also records the run in `pretraining.json`.

    `steps` fixes the length of the run (and so, with the seed, the threads and the machine, its result); without it,
    the speed of a few steps decides how many fit into `minutes`. `start` is the folder of a model to go on from, with
    its tokenizer, in place of a fresh one of `size`; give another seed then, so that the programs are fresh too.
    """
    _set_waiting_policy()
    import torch

    from nas_ray import language_model as lm

    torch.set_num_threads(threads)
    size = size or lm.Size()
    if start is None:
        texts = (one + two for one, two in documents(seed + 1, mistakes))
        tokenizer = lm.build_tokenizer((next(texts) for _ in range(tokenizer_documents)), size.vocabulary)
        model = lm.build_model(size, tokenizer, seed)
    else:
        model, tokenizer = lm.load(_model_folder(start))
    if deltas + drills > 0:
        lm.add_words(model, tokenizer, EDIT_WORDS)
    if steps is None:
        steps = _steps_that_fit(minutes, model, documents(0, mistakes, deltas, drills), tokenizer)
    warmup = min(100, max(1, steps // 10))
    recipe = lm.Recipe(steps=steps, warmup=warmup, seed=seed, learning_rate=learning_rate)
    parameters = sum(one.numel() for one in model.parameters())
    print(
        f"training {parameters:,} parameters for {steps} steps of {recipe.batch} programs, seed {seed}, into {out}",
        flush=True,
    )
    started = saved = time.monotonic()

    def checkpoint(step: int, loss: float) -> None:
        nonlocal saved
        if time.monotonic() - saved >= checkpoint_minutes * 60:
            saved = time.monotonic()
            lm.save(model, tokenizer, out)
            print(f"checkpoint of step {step} saved in {out}", flush=True)

    stream = lm.batches(documents(seed, mistakes, deltas, drills), tokenizer, recipe)
    loss = lm.train(model, stream, recipe, every=checkpoint)
    lm.save(model, tokenizer, out)
    record = {
        "start": _read_record(start),
        "size": asdict(size) if start is None else None,
        "recipe": asdict(recipe),
        "mistakes": mistakes,
        "deltas": deltas,
        "drills": drills,
        "threads": threads,
        "parameters": parameters,
        "final_loss_nats_per_token": round(loss, 4),
        "seconds": round(time.monotonic() - started, 1),
        "torch": torch.__version__,
    }
    (out / PRETRAINING_RECORD).write_text(json.dumps(record, indent=2) + "\n")
    print(f"done: loss {loss:.4f} nats per token, model in {out}", flush=True)
    return out


def _read_record(start: Path | None) -> Any:
    """What the model that this one began as was made by; None where nothing is known of that."""
    file = start / PRETRAINING_RECORD if start else None
    return json.loads(file.read_text()) if file and file.is_file() else None


def _steps_that_fit(
    minutes: float,
    model: "LlamaForCausalLM",
    texts: "Iterator[Document]",
    tokenizer: "PreTrainedTokenizerFast",
) -> int:
    """Time a few steps of a copy."""
    from nas_ray import language_model as lm

    recipe = lm.Recipe(steps=CALIBRATION_STEPS)
    stream = lm.batches(texts, tokenizer, recipe)
    next(stream)
    started = time.monotonic()
    lm.train(deepcopy(model), stream, recipe)
    return max(1, int(minutes * 60 / (time.monotonic() - started) * CALIBRATION_STEPS))


def _model_folder(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds no model (no config.json): make one with `python -m jobs.pretrain --out {folder}`"
        )
    return folder


def measure(
    folder: Path, *, count: int = 500, temperature: float = 1.0, seed: int = 0, threads: int = 2
) -> dict[str, object]:
    """Sample `count` programs for digits from the model in `folder`, train each for an epoch, and sum up.

    See `nas_ray.seed_model.measure` for the protocol.
    """
    _set_waiting_policy()
    import torch

    from nas_ray import language_model as lm
    from nas_ray.seed_model import measure as yardstick

    torch.set_num_threads(threads)
    model, tokenizer = lm.load(_model_folder(folder))
    task = prompt(yardstick.IN_SHAPE, yardstick.CLASSES, yardstick.BUDGET)
    programs = lm.sample(model, tokenizer, task, count, seed=seed, temperature=temperature)
    return {"temperature": temperature, "seed": seed, **_sum_up(programs, tokenizer)}


def measure_grammar(
    *, count: int = 500, seed: int = 0, mistakes: float = MISTAKES, threads: int = 2
) -> dict[str, object]:
    """The same for programs of the grammar itself, counted in tokens of the seed model: the teacher's own figures."""
    _set_waiting_policy()
    import torch
    from transformers import AutoTokenizer

    from nas_ray.seed_model import folder
    from nas_ray.seed_model import measure as yardstick

    torch.set_num_threads(threads)
    rng = random.Random(seed)
    task = yardstick.IN_SHAPE, yardstick.CLASSES, yardstick.BUDGET
    programs = [sample_program(rng, *task, mistakes=mistakes) for _ in range(count)]
    return {"mistakes": mistakes, "seed": seed, **_sum_up(programs, AutoTokenizer.from_pretrained(folder()))}


def _sum_up(programs: list[str], tokenizer: "PreTrainedTokenizerFast") -> dict[str, object]:
    from nas_ray.seed_model import measure as yardstick

    lengths = [len(tokenizer(one)["input_ids"]) + 1 for one in programs]  # and the end mark
    print(f"{len(programs)} programs, {sum(lengths) / len(lengths):.1f} tokens each on average", flush=True)
    result = yardstick.summary(programs, yardstick.judge_all(programs))
    return {**result, "tokens": {"mean": round(sum(lengths) / len(lengths), 1), "max": max(lengths)}}


def _set_waiting_policy() -> None:
    """Threads that spin while they wait make a shared CPU several times slower; read when torch is imported first."""
    for name, value in {**PASSIVE_THREADS, "TOKENIZERS_PARALLELISM": "false"}.items():
        os.environ.setdefault(name, value)


def command(
    out: Annotated[Path | None, typer.Option(help="Folder for the new model.")] = None,
    minutes: Annotated[
        float, typer.Option(help="Length of the training, used when --steps is not given.", min=0.01)
    ] = 25.0,
    steps: Annotated[int | None, typer.Option(help="Batches to train on; fixes the result for a seed.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Seed of the programs, the weights and the order.")] = 0,
    mistakes: Annotated[
        float, typer.Option(help="Share of the programs that hold a mistake.", min=0.0, max=1.0)
    ] = MISTAKES,
    deltas: Annotated[
        float, typer.Option(help="Share of the documents that are edits of a program.", min=0.0, max=1.0)
    ] = 0.0,
    drills: Annotated[
        float, typer.Option(help="Share that are exercises in quoting lines, for the edits.", min=0.0, max=1.0)
    ] = 0.0,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
    start: Annotated[Path | None, typer.Option(help="Go on from the model in this folder.")] = None,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.", min=0.0)] = 3e-3,
    checkpoint_minutes: Annotated[float, typer.Option(help="Minutes between checkpoints.", min=0.0)] = 3.0,
    measure_folder: Annotated[
        Path | None,
        typer.Option(
            "--measure", help="Measure the model in this folder (after training: --out) on digits; prints JSON."
        ),
    ] = None,
    grammar: Annotated[bool, typer.Option("--measure-grammar", help="Measure the grammar's own programs.")] = False,
    count: Annotated[int, typer.Option(help="Programs to measure.", min=1)] = 500,
    temperature: Annotated[float, typer.Option(help="Sampling temperature for --measure.", min=0.01)] = 1.0,
) -> None:
    """Make a seed model from the random program grammar, or measure one.

    Example:  nas-ray pretrain --out runs/my_seed_model --minutes 25 && nas-ray pretrain --measure runs/my_seed_model
    """
    if deltas + drills > 1:
        raise typer.BadParameter(f"--deltas {deltas:g} and --drills {drills:g} are shares: together at most 1")
    if out is None and measure_folder is None and not grammar:
        raise typer.BadParameter(
            "give --out FOLDER to make a model, --measure FOLDER to measure one, or --measure-grammar"
        )
    try:
        if out is not None:
            pretrain(
                out,
                minutes=minutes,
                steps=steps,
                seed=seed,
                mistakes=mistakes,
                deltas=deltas,
                drills=drills,
                threads=threads,
                checkpoint_minutes=checkpoint_minutes,
                start=start,
                learning_rate=learning_rate,
            )
        if measure_folder is not None:
            result = measure(measure_folder, count=count, temperature=temperature, seed=seed, threads=threads)
            print(json.dumps(result, indent=2))
    except FileNotFoundError as error:
        raise typer.BadParameter(str(error)) from error
    if grammar:
        print(json.dumps(measure_grammar(count=count, seed=seed, mistakes=mistakes, threads=threads), indent=2))


if __name__ == "__main__":
    typer.run(command)
