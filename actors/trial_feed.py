"""Where the driver and a running `Tuner.fit()` meet: candidates go in while it runs, measurements come out.

In: jobs from the driver's thread. Out: suggestions to Tune's thread, and results back. Tune pickles its searcher,
scheduler and callbacks with everything they hold, so these hold only a name; the `Feed` behind it, with its lock,
stays here.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.tune import Callback, Stopper
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import Searcher

from nas_ray.candidate import Key, Measurement, Trial
from nas_ray.outcome import Outcome, Stage

MANY = 1 << 20  # cached evaluators: as many as there can be


@dataclass(slots=True)
class Job:
    """One trial on its way to its measurements."""

    key: Key
    trial: Trial  # without the trainings that are behind it
    attempts: int = 0  # evaluations begun


class Feed:
    """Jobs waiting, jobs in trials, results; one lock. Lives in the driver's process."""

    def __init__(self, retries: int, most: int | None) -> None:
        self._retries = retries
        self._most = most  # trials at once; None: as many as Tune can place
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._trials: dict[str, Job] = {}
        self._actors: dict[str, Any] = {}  # of the trials that run
        self._errors: dict[str, str] = {}
        self._results: deque[tuple[Key, Measurement]] = deque()
        self._finishing = False
        self._aborting = False
        self._failure = ""
        self._progress = time.monotonic()

    # --- the driver's side ---

    def open(self) -> None:
        """Makes ready for another fit. Jobs that were waiting stay."""
        with self._changed:
            self._finishing = self._aborting = False
            self._failure = ""
            self._progress = time.monotonic()

    def put(self, job: Job) -> None:
        with self._changed:
            if not self._waiting and not self._trials:
                self._progress = time.monotonic()
            self._waiting.append(job)
            self._changed.notify_all()

    def drain(self, timeout: float) -> list[tuple[Key, Measurement]]:
        """All results so far; waits up to `timeout` seconds for the first."""
        with self._changed:
            self._changed.wait_for(lambda: self._results or self._failure, timeout)
            results = list(self._results)
            self._results.clear()
            return results

    def finish(self, abort: bool) -> None:
        """Ends the fit: after the jobs that were put, or at once with `abort` (running trials are killed)."""
        with self._changed:
            self._finishing = True
            self._aborting = self._aborting or abort
            actors = list(self._actors.values()) if abort else []
            if abort:
                self._waiting.clear()
            self._changed.notify_all()
        for actor in actors:
            ray.kill(actor)

    def fail(self, reason: str) -> None:
        """Records that the fit ended with an exception. Jobs in trials wait for the next fit."""
        with self._changed:
            self._failure = reason
            self._waiting.extendleft(reversed(self._trials.values()))
            self._trials.clear()
            self._actors.clear()
            self._changed.notify_all()

    @property
    def aborting(self) -> bool:
        with self._changed:
            return self._aborting

    @property
    def failure(self) -> str:
        with self._changed:
            return self._failure

    @property
    def in_flight(self) -> int:
        """Jobs put whose results have not been drained."""
        with self._changed:
            return len(self._waiting) + len(self._trials) + len(self._results)

    @property
    def unplaced_seconds(self) -> float:
        """How long there have been jobs, no trial running and nothing finished; 0 while anything runs."""
        with self._changed:
            if self._actors or not (self._waiting or self._trials):
                return 0.0
            return time.monotonic() - self._progress

    # --- Tune's side ---

    def take(self, trial_id: str) -> dict[str, Any] | str | None:
        """A config for a new trial, `Searcher.FINISHED`, or None.

        With no trial alive Tune has nothing else to do, and would look again only after a second: then this waits.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._trials or self._finishing)
            if self._waiting and (self._most is None or len(self._trials) < self._most):
                job = self._waiting.popleft()
                job.attempts += 1
                self._trials[trial_id] = job
                return {"trial": job.trial}
            if self._finishing and not self._waiting:
                return Searcher.FINISHED
            return None

    def note_start(self, trial_id: str, actor: Any) -> None:
        with self._changed:
            self._progress = time.monotonic()
            self._actors[trial_id] = actor
            if not self._aborting:
                return
        ray.kill(actor)

    def note_error(self, trial_id: str, text: str) -> None:
        with self._changed:
            self._errors[trial_id] = text

    def note_training(self, trial_id: str, measurement: Measurement) -> None:
        """A training is over and the trial goes on to the next; if it is lost then, this one is not repeated."""
        with self._changed:
            self._progress = time.monotonic()
            job = self._trials.get(trial_id)
            if job is None or self._aborting:
                return
            job.trial = replace(job.trial, epochs=job.trial.epochs[1:], known=None)
            self._results.append((job.key, replace(measurement, final=False)))
            self._changed.notify_all()

    def note_end(self, trial_id: str, measurement: Measurement | None) -> None:
        """A trial ended; without a measurement it was lost with its process or node."""
        with self._changed:
            self._progress = time.monotonic()
            self._actors.pop(trial_id, None)
            error = self._errors.pop(trial_id, "")
            job = self._trials.pop(trial_id, None)
            if job is None or self._aborting:
                return
            if measurement is None:
                detail = f"the evaluator was lost, attempt {job.attempts}: {error or 'its process ended'}"
                epochs = job.trial.epochs[0]
                measurement = Measurement(Outcome.NODE_LOST, Stage.TRAIN, detail, "", 0.0, epochs=epochs)
            if measurement.outcome.is_engine_fault and job.attempts <= self._retries:
                self._waiting.appendleft(job)
            else:
                self._results.append((job.key, measurement))
            self._changed.notify_all()


_feeds: dict[str, Feed] = {}


def register_feed(name: str, feed: Feed) -> None:
    """Makes `feed` reachable by name for the classes below."""
    _feeds[name] = feed


def drop_feed(name: str) -> None:
    _feeds.pop(name, None)


class FeedSearcher(Searcher):
    """Suggests what the driver has put into a feed, for as long as the driver likes."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def suggest(self, trial_id: str) -> Any:
        return _feeds[self.name].take(trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        _feeds[self.name].note_training(trial_id, result["measurement"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        measurement = None if error or not result else result.get("measurement")
        _feeds[self.name].note_end(trial_id, measurement)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the run's own Parquet files are the truth. Tune wants a file."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: a fit is never resumed."""


class WarmScheduler(FIFOScheduler):
    """First in, first out; and evaluators stay alive when there is nothing to do for a while.

    By itself Tune keeps one idle actor and ends the others, and the next burst would pay for their start again.

    Args:
        halving: decides after each training of a trial with several whether it goes on; None: each of them does.
            Trials with one training are none of its business, and it is not asked about failures.
    """

    def __init__(self, name: str, halving: ASHAScheduler | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.name = name
        self._halving = halving
        self._warm: set[Any] = set()  # resource requests whose actors are kept already

    def _halving_of(self, trial: Any) -> ASHAScheduler | None:
        return self._halving if len(trial.config["trial"].epochs) > 1 else None

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        if halving := self._halving_of(trial):
            halving.on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        halving = self._halving_of(trial)
        return str(halving.on_trial_result(tune_controller, trial, result)) if halving else self.CONTINUE

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        if halving := self._halving_of(trial):
            halving.on_trial_remove(tune_controller, trial)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if halving := self._halving_of(trial):
            halving.on_trial_complete(tune_controller, trial, result)
        cache = getattr(tune_controller, "_actor_cache", None)  # private: without it, idle evaluators start again
        request = trial.placement_group_factory
        if cache is not None and request not in self._warm:
            self._warm.add(request)
            cache.increase_max(request, MANY)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        error = trial.get_error()
        lines = str(error).strip().splitlines() if error else []
        _feeds[self.name].note_error(trial.trial_id, lines[-1] if lines else "")


class StartCallback(Callback):
    """Tells the feed which trials have found a place."""

    def __init__(self, name: str) -> None:
        self.name = name

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        _feeds[self.name].note_start(trial.trial_id, trial.temporary_state.ray_actor)


class FeedStopper(Stopper):
    """Stops everything, trials that still look for a place included, once the feed is told to abort."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return _feeds[self.name].aborting
