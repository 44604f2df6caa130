"""The evaluator: one Tune trial measures one `Trial` of a candidate, and the process lives on for the next one.

In: a trial's config, `{"trial": Trial}`; once, the run's configuration and the data sets (from the object store). Out:
a result with a `Measurement` for each of the trial's trainings, until Tune ends it or there is none left. This process
never imports torch: programs run in the sandbox's children.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import ray
from ray import tune

from nas_ray.candidate import Measurement, Trial
from nas_ray.config import RunConfig
from nas_ray.datasets import Dataset
from nas_ray.outcome import Outcome, Stage
from nas_ray.sandbox import Sandbox


class Evaluator(tune.Trainable):
    """Owns one warm sandbox for each data set that it has met. Reused by Tune from trial to trial."""

    def setup(  # type: ignore[override]  # tune.with_parameters adds the last two
        self, config: dict[str, Any], run: RunConfig, datasets: Mapping[str, Dataset]
    ) -> None:
        self._run, self._datasets = run, datasets
        self._sandboxes: dict[str, Sandbox] = {}
        self._node = ray.get_runtime_context().get_node_id()
        self._trial: Trial = config["trial"]
        self._begun = 0  # trainings of this trial
        self._open_sandbox(self._trial.dataset)  # it warms up while Tune goes on

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes the next trial. The sandboxes stay as they are."""
        self._trial, self._begun = new_config["trial"], 0
        return True

    def step(self) -> dict[str, Any]:
        """The next training of the trial, or what is known of it; the last one and one that failed end the trial."""
        place, self._begun = self._begun, self._begun + 1
        epochs = self._trial.epochs[place]
        known = self._trial.known if place == 0 else None
        if known is not None:
            measurement = Measurement(Outcome.VALID, Stage.TRAIN, "", "", 0.0, accuracy=known, epochs=epochs)
        else:
            measurement = self._measure(epochs)
        done = self._begun == len(self._trial.epochs) or measurement.outcome is not Outcome.VALID
        result = {"measurement": measurement, "epochs": epochs, "done": done}
        return result if measurement.accuracy is None else {**result, "accuracy": measurement.accuracy}

    def cleanup(self) -> None:
        for sandbox in self._sandboxes.values():
            sandbox.close()

    def _measure(self, epochs: int) -> Measurement:
        tier = ""
        try:
            sandbox = self._open_sandbox(self._trial.dataset)
            measurement = sandbox.evaluate(self._trial.code, seed=self._trial.seed, epochs=epochs)
            if not measurement.outcome.is_engine_fault:  # a sandbox that failed may have no walls to tell of
                tier = sandbox.walls.tier
        except Exception as error:  # ours, not the candidate's: the pool tries again elsewhere
            detail = f"the evaluator failed: {error}"
            failed = type(error).__name__
            measurement = Measurement(Outcome.SANDBOX_ERROR, Stage.TRAIN, detail, failed, 0.0, epochs=epochs)
        return dataclasses.replace(measurement, node=self._node, tier=tier)

    def _open_sandbox(self, name: str) -> Sandbox:
        """The sandbox of a data set, which stays; the first call for each starts it."""
        if name not in self._sandboxes:
            resources = self._run.resources
            self._sandboxes[name] = Sandbox(
                "cuda" if resources.evaluator_gpus > 0 else "cpu",
                self._datasets[name],
                self._run.protocol,
                self._run.budget,
                max(1, int(resources.evaluator_cpus)),
                containment=self._run.containment,
            )
        return self._sandboxes[name]
