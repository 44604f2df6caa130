"""The evaluators of a cluster, fed while they run: one long `Tuner.fit()` with one Tune trial for each `Trial`.

In: trials under keys. Out: a `Measurement` for each of their trainings, exactly once, as they finish. A trial that is
lost with its process or node is run again, up to `resources.retries` times. Evaluators stay warm until `release`.

Tune's own files (a temporary folder) are thrown away: what matters is in the run's Parquet files.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import uuid
from collections.abc import Mapping

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from actors.evaluator import Evaluator
from actors.trial_feed import (
    Feed,
    FeedSearcher,
    FeedStopper,
    Job,
    StartCallback,
    WarmScheduler,
    drop_feed,
    register_feed,
)
from nas_ray.candidate import Key, Measurement, Trial
from nas_ray.config import RunConfig
from nas_ray.datasets import Dataset
from nas_ray.scratch import make_scratch

END_SECONDS = 30.0  # for the fit to end once it was told to
# Trials waiting for a place. Each asks the cluster for one, which is what an autoscaler sees; see ray issue 43451.
PENDING_TRIALS = 64
TUNE_ENVIRONMENT = {
    "TUNE_MAX_PENDING_TRIALS_PG": str(PENDING_TRIALS),
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a CSV, a JSON and a TensorBoard file for each trial
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # never: a fit is not resumed
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # a lost evaluator is reported by us
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new reporter prints its boxes at any verbosity
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


class EvaluationError(RuntimeError):
    """Evaluation cannot go on: no place for a trial, or Tune itself failed."""


def count_places(wants: Mapping[str, float], has: Mapping[str, float]) -> int:
    """How many that want so much of each resource a node that has so much runs at once."""
    shares = [has.get(name, 0.0) / amount for name, amount in wants.items() if amount > 0]
    return int(min(shares) + 1e-9)  # three of 0.1 fit into 0.3


class TrialPool:
    """Feeds one `Tuner.fit()` in a background thread. Methods are for one thread, the driver's.

    Args:
        config: of the run; `resources`, `protocol`, `evaluation` and `budget` matter here.
        datasets: that candidates are trained and graded on, by name; they travel once, through the object store.
    """

    def __init__(self, config: RunConfig, datasets: Mapping[str, Dataset]) -> None:
        self._config = config
        self._resources = config.resources
        self._names = tuple(datasets)
        self._name = f"feed-{uuid.uuid4().hex[:8]}"
        self._feed = Feed(self._resources.retries, self._resources.evaluators)
        register_feed(self._name, self._feed)
        self._trainable = tune.with_resources(
            tune.with_parameters(Evaluator, run=config, datasets=dict(datasets)), self._request()
        )
        self._thread: threading.Thread | None = None

    def _request(self) -> dict[str, float]:
        request = {"CPU": self._resources.evaluator_cpus}
        if self._resources.evaluator_gpus > 0:
            request["GPU"] = self._resources.evaluator_gpus
        return request

    def start(self) -> None:
        """Begins to take trials, if not begun already. Returns at once."""
        if self._thread is None:
            self._feed.open()
            self._thread = threading.Thread(target=self._fit, name="tune", daemon=True)
            self._thread.start()

    def submit(self, key: Key, trial: Trial) -> None:
        """Has a program evaluated; returns at once. `key` names it until its last result has been taken.

        Raises `EvaluationError` if the last fit failed, `ValueError` for a data set that the pool was not made with.
        """
        self._check()
        if trial.dataset not in self._names:
            raise ValueError(f"the pool has no data set {trial.dataset!r}; it has {', '.join(self._names)}")
        self._feed.put(Job(key, trial))
        self.start()

    def results(self, timeout: float = 0.0) -> list[tuple[Key, Measurement]]:
        """What has finished since the last call; waits up to `timeout` seconds for the first.

        A trial with one training gives one measurement. One with several gives one after each, in order; all but the
        last have `final=False`.

        Raises `EvaluationError` when trials found no place for `resources.place_seconds`, or Tune failed.
        """
        results = self._feed.drain(timeout)
        if not results:
            self._check()
        return results

    @property
    def in_flight(self) -> int:
        """Trials that are not over, and results that have not been taken."""
        return self._feed.in_flight

    @property
    def capacity(self) -> int:
        """Trials that the cluster, as it is now and if nothing else used it, runs at once."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        places = sum(count_places(self._request(), has) for has in nodes)
        return places if self._resources.evaluators is None else min(places, self._resources.evaluators)

    def release(self) -> None:
        """Waits for what is in flight, then ends the evaluators and frees their places. `submit` starts new ones."""
        self._end(abort=False)

    def close(self) -> None:
        """Ends everything, running evaluations included. The pool is of no use afterwards."""
        self._end(abort=True)
        drop_feed(self._name)

    def _end(self, abort: bool) -> None:
        if self._thread is None:
            return
        self._feed.finish(abort)
        self._thread.join(END_SECONDS if abort else None)
        self._thread = None

    def _check(self) -> None:
        failure = self._feed.failure
        if failure:
            raise EvaluationError(f"Ray Tune failed, so no candidate can be evaluated: {failure}")
        if self._feed.unplaced_seconds > self._resources.place_seconds:
            wanted = " and ".join(f"{amount:g} {name}" for name, amount in self._request().items())
            total = ray.cluster_resources()  # type: ignore[no-untyped-call]
            free = ray.available_resources()  # type: ignore[no-untyped-call]
            names = list(self._request())
            have = ", ".join(f"{free.get(name, 0):g} of {total.get(name, 0):g} {name} free" for name in names)
            waited = f"{self._resources.place_seconds:g} s (resources.place_seconds)"
            raise EvaluationError(
                f"no evaluation found a free place for {waited}: one needs {wanted} on a single node; the cluster has "
                f"{have}. Lower resources.evaluator_cpus or resources.evaluator_gpus, stop what holds the rest, or add "
                "nodes"
            )

    def _halving(self) -> ASHAScheduler | None:
        """Tune's own asynchronous successive halving (Li et al. 2020, arXiv:1810.05934), where the run has it."""
        evaluation = self._config.evaluation
        if evaluation.scheduler == "none":
            return None
        return ASHAScheduler(
            time_attr="epochs",
            metric="accuracy",
            mode="max",
            grace_period=evaluation.grace_epochs,
            reduction_factor=evaluation.reduction_factor,
            max_t=self._config.protocol.epochs,
        )

    def _fit(self) -> None:
        """Runs in the background until the feed says that it is finished."""
        os.environ.update({name: os.environ.get(name, value) for name, value in TUNE_ENVIRONMENT.items()})
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures reach the driver as exceptions and results
        folder = ""
        try:
            folder = make_scratch("tune")
            tuner = tune.Tuner(
                self._trainable,
                tune_config=tune.TuneConfig(
                    search_alg=FeedSearcher(self._name),
                    scheduler=WarmScheduler(self._name, self._halving()),
                    num_samples=-1,
                    reuse_actors=True,
                    trial_dirname_creator=lambda trial: trial.trial_id,
                ),
                run_config=tune.RunConfig(
                    name="evaluations",
                    storage_path=folder,
                    verbose=0,
                    stop=FeedStopper(self._name),
                    callbacks=[StartCallback(self._name)],
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    failure_config=tune.FailureConfig(max_failures=0),
                ),
            )
            tuner.fit()
        except BaseException as error:
            lines = str(error).strip().splitlines()
            self._feed.fail(f"{type(error).__name__}: {lines[-1] if lines else ''}")
        finally:
            if folder:
                shutil.rmtree(folder, ignore_errors=True)
