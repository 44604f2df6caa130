"""How often a model's edits apply: both formats, beside whole programs by the same model.

    python -m benchmarks.edits                                              # the seed model
    python -m benchmarks.edits --model PATH --engine vllm --dtype bfloat16 --count 16 --temperature 0.7 \\
        --formats full search_replace unified_diff --context 2048 --tokens 400

Parents are programs of the random grammar that build for digits, the same ones in each format. Every parent is shown
with an accuracy and its size and one edit is asked for, at the temperature of a search. Out: a Markdown table of shares
with 95 % intervals (Wilson's): applies, changes something, parses and builds, and the tokens that an answer takes.
Nothing is trained. The seed model was pretrained on search and replace, so its unified diffs say nothing.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections import Counter

from transformers import AutoTokenizer

from actors.engines import open_engine
from benchmarks.learning import percent
from nas_ray.answer import read_answer
from nas_ray.build import build_program
from nas_ray.candidate import Build, Completion, GenerationRequest
from nas_ray.config import RunConfig
from nas_ray.datasets import in_shape, load_dataset, out_shape
from nas_ray.generation_requests import RequestWriter
from nas_ray.grammar import sample_program
from nas_ray.interval import wilson
from nas_ray.model_folder import resolve_model
from nas_ray.outcome import Outcome, Rejection, Stage
from nas_ray.schema import CandidateRow
from nas_ray.training import hyperparameters

STEPS = ("applies", "changes something", "parses", "builds")


def draw_parents(count: int, config: RunConfig, shape: tuple[int, ...], classes: int) -> list[CandidateRow]:
    """Programs of the grammar that build, as an archive with made-up accuracies."""
    rng = random.Random(config.seed)
    rows: list[CandidateRow] = []
    while len(rows) < count:
        code = sample_program(rng, (shape[1], shape[2], shape[3]), classes, config.budget.parameters, mistakes=0.0)
        built = build_program(code, shape, (classes,), hyperparameters(config.protocol), config.budget, 0)
        if isinstance(built, Build):
            rows.append(
                CandidateRow(
                    run="edits",
                    cycle=0,
                    index=len(rows),
                    id=f"{len(rows):016x}",
                    outcome=Outcome.VALID,
                    stage=Stage.TRAIN,
                    novel=True,
                    code=code,
                    accuracy=rng.uniform(0.1, 0.95),
                    parameters=built.parameters,
                    depth=built.depth,
                )
            )
    return rows


def write_answers(requests: list[GenerationRequest], config: RunConfig) -> list[Completion]:
    """The model's answers, all asked at once."""
    engine = open_engine(config)
    for request in requests:
        engine.add(request)
    answers: list[Completion] = []
    while engine.busy:
        answers += engine.step()
    engine.close()
    return answers


def judge(request: GenerationRequest, answer: Completion, config: RunConfig, shape: tuple[int, ...]) -> tuple[int, str]:
    """How many of `STEPS` an answer passes, and why no more."""
    read = read_answer(request, answer.text, config.delta)
    if isinstance(read, Rejection):
        lost = {Outcome.PATCH_FAILED: 0, Outcome.NO_CHANGE: 1}
        return lost.get(read.outcome, 0 if request.mode == "full" else 2), f"{read.outcome}: {read.detail[:70]}"
    built = build_program(
        read.program.code, shape, (10,), hyperparameters(config.protocol), config.budget, config.protocol.seed
    )
    return (4, "") if isinstance(built, Build) else (3, f"{built.outcome}: {built.detail[:70]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="seed")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", nargs="+", default=["full", "search_replace"])
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=320, help="longest answer")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--show", type=int, default=0, help="print so many answers of each format")
    given = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(resolve_model(given.model))
    print("| answer | " + " | ".join(f"{step}, %" for step in STEPS) + " | tokens, mean | s, all |")
    print("|---" * (len(STEPS) + 3) + "|")
    notes = []
    for form in given.formats:
        edits = form != "full"
        config = RunConfig.model_validate(
            {
                "seed": given.seed,
                "candidates_per_cycle": given.count,
                "model": {
                    "path": given.model, "engine": given.engine, "dtype": given.dtype, "context_tokens": given.context,
                    "concurrent_requests": min(32, given.count),
                },
                "generation": {
                    "temperature": given.temperature, "max_tokens": given.tokens, "full": not edits, "delta": edits,
                    "examples": 0,
                },
                "delta": {"format": form if edits else "search_replace", "parents": "rank"},
            }
        )  # fmt: skip
        dataset = load_dataset(config.dataset)
        shape = in_shape(dataset)
        archive = draw_parents(given.count, config, shape, out_shape(dataset)[0])
        requests = RequestWriter(config, dataset, tokenizer).write(1, (), archive)
        begun = time.monotonic()
        answers = write_answers(requests, config)
        seconds = time.monotonic() - begun
        judged = [judge(requests[answer.index], answer, config, shape) for answer in answers]
        counts = (sum(passed > place for passed, _ in judged) for place in range(len(STEPS)))
        cells = [percent(wilson(count, len(judged))) for count in counts]
        tokens = statistics.mean(answer.tokens for answer in answers)
        print(f"| {form}, n = {len(judged)} | " + " | ".join(cells) + f" | {tokens:.1f} | {seconds:.0f} |", flush=True)
        reasons = Counter(reason for _, reason in judged if reason)
        notes += [f"{form}: {count} x {reason}" for reason, count in reasons.most_common(6)]
        notes += [f"--- {form}\n{answer.text}" for answer in answers[: given.show]]
    print("\n" + "\n".join(notes))


if __name__ == "__main__":
    main()
