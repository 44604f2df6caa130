"""The processes that fine-tune the generator, kept warm between cycles: one long Ray Train job, fed with tasks.

In: `FinetuneTask`s, one at a time. Out: a `FinetuneReport` for each, and the new adapter's folder in the job's storage.

Starting a Ray Train job and importing its libraries takes far longer than training a small model's adapter, so workers
that hold no CPU and no GPU of the cluster stay and wait for the next task; others leave after each.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Any

import ray
import ray.train

from actors.finetune_tasks import FinetuneTask, TaskBoard, last_line, work
from nas_ray.adapters import folder_within, is_remote, remove_folder
from nas_ray.config import FinetuneConfig
from nas_ray.finetune_report import FinetuneReport
from nas_ray.threads import PASSIVE_THREADS

# Unless told otherwise when a job starts, Ray Train looks after its workers every 2 s, and keeps metrics of itself.
TRAIN_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a relative path in a configuration means the same in a worker
}
WORKER_ENVIRONMENT = PASSIVE_THREADS | {"TOKENIZERS_PARALLELISM": "false"}
# A placement group refuses a bundle of nothing. Every node has memory, and one byte of it is always free.
NO_PLACE = {"memory": 1.0}
LEAVE_SECONDS = 60.0  # for workers that are only just starting; what is left then goes with the driver
RUN = "train"  # Ray Train's folder within the storage


class FinetuneWorkers:
    """The driver's handle. `storage` is a folder or address for Ray Train's checkpoints that all nodes used can reach;
    it is emptied at the start and removed at the end. The first task starts the job; after a worker's or a node's death
    Ray Train starts the workers again, and they take up the task at its last checkpoint."""

    def __init__(self, config: FinetuneConfig, storage: str) -> None:
        self._config = config
        self._storage = storage
        self._board: Any = None  # handle of the TaskBoard
        self._job: threading.Thread | None = None
        self._error: BaseException | None = None
        self._busy = False

    @property
    def holds_place(self) -> bool:
        """True where the workers take CPUs or GPUs of the cluster."""
        return self._config.cpus > 0 or self._config.gpus > 0

    def start(self) -> threading.Thread:
        """Start the job if none is there; a search may do so early, while cores have nothing else to do."""
        if self._board is None:
            remove_folder(self._storage)  # a killed driver's
            here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
            self._board = ray.remote(num_cpus=0, label_selector=here)(TaskBoard).remote(self._config.attempts)
        if self._job is None or not self._job.is_alive():
            self._error = None
            self._job = threading.Thread(target=self._fit, name="finetune", daemon=True)
            self._job.start()
        return self._job

    def run(self, task: FinetuneTask) -> tuple[FinetuneReport, str]:
        """Do one task; blocks. The report, and the folder that holds the adapter until the next task ("": none)."""
        self._busy = True  # and stays so if the driver is interrupted here
        outcome = self._run(task)
        self._busy = False
        return outcome

    def _run(self, task: FinetuneTask) -> tuple[FinetuneReport, str]:
        for _attempt in range(self._config.attempts):
            job = self.start()
            try:
                ray.get(self._board.put.remote(task))
                while job.is_alive():
                    answer = ray.get(self._board.answer.remote(1.0))
                    if answer:
                        return answer.report, answer.checkpoint and folder_within(
                            self._storage, f"{RUN}/{answer.checkpoint}"
                        )
            except ray.exceptions.RayActorError as error:  # the board's process was killed: the workers end of it too
                self._error, self._board = error, None
                job.join()
        return FinetuneReport(reason=f"its Ray Train job failed: {last_line(self._error)}"), ""

    def release(self) -> None:
        """End the job and give its places back; the next task starts another.

        Workers in the middle of a task, whose driver was interrupted, are not waited for: they end with the driver.
        """
        if self._board is not None:
            with suppress(ray.exceptions.RayActorError):  # killed: the workers end of it too
                ray.get(self._board.close.remote())
            if self._job and not self._busy:
                self._job.join(LEAVE_SECONDS)
            ray.kill(self._board)
        self._board, self._job = None, None

    def close(self) -> None:
        """End the job and remove its checkpoints."""
        self.release()
        remove_folder(self._storage)

    def _fit(self) -> None:
        try:
            self._trainer().fit()
        except Exception as error:  # told by `run`, in the driver's own thread
            self._error = error

    def _trainer(self) -> Any:
        from ray.train.torch import TorchTrainer  # imports torch: only a driver that fine-tunes pays for it

        config = self._config
        nodes = [node for node in ray.nodes() if node["Alive"]]
        environment = TRAIN_ENVIRONMENT | ({"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"} if len(nodes) == 1 else {})
        os.environ.update({name: os.environ.get(name, value) for name, value in environment.items()})
        place = {kind: amount for kind, amount in (("CPU", config.cpus), ("GPU", config.gpus)) if amount}
        here = ray.get_runtime_context().get_node_id()
        return TorchTrainer(
            work,
            train_loop_config={"board": self._board},
            scaling_config=ray.train.ScalingConfig(
                num_workers=config.workers,
                use_gpu=config.gpus > 0,
                resources_per_worker=place or NO_PLACE,
                label_selector={"ray.io/node-id": here} if _must_stay_here(config, self._storage) else None,
            ),
            run_config=ray.train.RunConfig(
                name=RUN,
                storage_path=self._storage,
                failure_config=ray.train.FailureConfig(max_failures=config.attempts - 1, controller_failure_limit=0),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
                worker_runtime_env={"env_vars": WORKER_ENVIRONMENT},
                logging_config=ray.train.LoggingConfig(log_level="ERROR"),
            ),
        )


def _must_stay_here(config: FinetuneConfig, storage: str) -> bool:
    """True where other nodes may not see the run folder and this one has all that the workers need.

    On a cluster without a shared folder the workers could not bring an adapter back from anywhere else. Where this node
    is too small they are placed freely, and Ray Train says so if the folder turns out not to be shared.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if is_remote(storage) or len(nodes) == 1:
        return False
    here = next(node for node in nodes if node["NodeID"] == ray.get_runtime_context().get_node_id())
    wanted = {"CPU": config.cpus, "GPU": config.gpus}
    return all(here["Resources"].get(kind, 0) >= each * config.workers for kind, each in wanted.items())
