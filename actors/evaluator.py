"""The evaluator: one Tune trial measures one candidate, and the process lives on for the next trial.

In: a trial's config, `{"code": ...}`; once, the run's configuration and the data set (from the object store). Out:
one result with a `Measurement`. This process never imports torch: programs run in the sandbox's children.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import ray
from ray import tune

from nas_ray.candidate import Measurement
from nas_ray.config import RunConfig
from nas_ray.datasets import Dataset
from nas_ray.outcome import Outcome, Stage
from nas_ray.sandbox import Sandbox


class Evaluator(tune.Trainable):
    """Owns one warm sandbox. Reused by Tune from trial to trial."""

    def setup(  # type: ignore[override]  # tune.with_parameters adds the last two
        self, config: dict[str, Any], run: RunConfig, dataset: Dataset
    ) -> None:
        resources = run.resources
        device = "cuda" if resources.evaluator_gpus > 0 else "cpu"
        threads = max(1, int(resources.evaluator_cpus))
        self._sandbox = Sandbox(device, dataset, run.protocol, run.budget, threads, containment=run.containment)
        self._node = ray.get_runtime_context().get_node_id()
        self._code: str = config["code"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes the next candidate. The sandbox stays as it is."""
        self._code = new_config["code"]
        return True

    def step(self) -> dict[str, Any]:
        """Measures the candidate; the trial is over after this."""
        try:
            measurement = self._sandbox.evaluate(self._code)
        except Exception as error:  # ours, not the candidate's: the pool tries again elsewhere
            detail = f"the evaluator failed: {error}"
            measurement = Measurement(Outcome.SANDBOX_ERROR, Stage.TRAIN, detail, type(error).__name__, 0.0)
        # A sandbox that failed may have no walls to tell of.
        tier = "" if measurement.outcome.is_engine_fault else self._sandbox.walls.tier
        measurement = dataclasses.replace(measurement, node=self._node, tier=tier)
        return {"measurement": measurement, "done": True}

    def cleanup(self) -> None:
        self._sandbox.close()
