"""The board on which fine-tunes are posted: who gets which task, how often, and what the driver is told."""

from __future__ import annotations

import asyncio

from actors.finetune_tasks import Answer, FinetuneTask, TaskBoard
from nas_ray.config import FinetuneConfig
from nas_ray.finetune_report import FinetuneReport


def task(version: int) -> FinetuneTask:
    return FinetuneTask(version, "seed", (), (), FinetuneConfig(), "auto", "", 0)


def test_workers_wait_for_a_task_and_do_it_once() -> None:
    async def scene() -> None:
        board = TaskBoard(attempts=3)
        waiting = asyncio.create_task(board.take(0, after=0))
        await board.put(task(1))
        assert await waiting == (1, 1, task(1))
        await board.give(1, Answer(FinetuneReport(version=1)))
        assert await board.answer(1.0) == Answer(FinetuneReport(version=1))
        following = asyncio.create_task(board.take(0, after=1))
        await board.put(task(2))
        assert await following == (2, 1, task(2))

    asyncio.run(scene())


def test_workers_that_start_anew_get_the_unfinished_task_and_every_rank_the_same_attempt() -> None:
    async def scene() -> None:
        board = TaskBoard(attempts=3)
        await board.put(task(1))
        assert await board.take(0, after=0) == (1, 1, task(1))
        assert await board.take(0, after=0) == (1, 2, task(1))
        assert await board.take(1, after=0) == (1, 2, task(1))

    asyncio.run(scene())


def test_after_all_attempts_the_driver_is_told_the_last_cause() -> None:
    async def scene() -> None:
        board = TaskBoard(attempts=2)
        await board.put(task(1))
        await board.take(0, after=0)
        await board.take(0, after=0)
        await board.fault("RuntimeError: out of memory")
        third = asyncio.create_task(board.take(0, after=0))
        answer = await board.answer(1.0)
        assert answer is not None
        assert answer.checkpoint == ""
        assert "2 attempts failed" in answer.report.reason
        assert "out of memory" in answer.report.reason
        await board.put(task(2))  # the workers that asked in vain get the next task
        assert await third == (2, 1, task(2))

    asyncio.run(scene())


def test_putting_the_unfinished_task_again_keeps_its_count_of_attempts() -> None:
    async def scene() -> None:
        board = TaskBoard(attempts=3)
        await board.put(task(1))
        await board.take(0, after=0)
        await board.put(task(1))
        assert await board.take(0, after=0) == (1, 2, task(1))

    asyncio.run(scene())


def test_no_answer_yet_is_none_and_a_late_one_to_an_older_task_is_dropped() -> None:
    async def scene() -> None:
        board = TaskBoard(attempts=1)
        await board.put(task(1))
        assert await board.answer(0.01) is None
        await board.put(task(2))
        await board.give(1, Answer(FinetuneReport(version=1)))
        assert await board.answer(0.01) is None

    asyncio.run(scene())


def test_closing_sends_waiting_workers_home() -> None:
    async def scene() -> None:
        board = TaskBoard(attempts=1)
        waiting = [asyncio.create_task(board.take(rank, after=0)) for rank in range(2)]
        await asyncio.sleep(0)
        await board.close()
        assert await asyncio.gather(*waiting) == [None, None]

    asyncio.run(scene())
