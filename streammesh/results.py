"""What became of tasks: told by a push, asked of the record when the push was missed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from streammesh import codec
from streammesh.batch import Batch
from streammesh.errors import (
    AuctionCancelled,
    AuctionExpired,
    AuctionFailed,
    AuctionNotFound,
    NoBids,
    ResultTimeout,
    RunCancelled,
    RunFailed,
    RunNotFound,
    TaskCancelled,
    TaskDead,
    TaskExpired,
    TaskFailed,
    TaskNotFound,
)
from streammesh.keys import Keys
from streammesh.record import State
from streammesh.replies import Answer, Replies
from streammesh.store import Store

__all__ = ["Results"]


#: States in which the outcome of a task or run is open.
_OPEN = frozenset(
    ("queued", "delayed", "running", "parked", "paused", "stuck", "open", "deciding", "awarded", "working")
)


class Results:
    """Where this client waits for the outcomes of tasks."""

    def __init__(self, store: Store, keys: Keys, replies: Replies) -> None:
        self._store = store
        self._keys = keys
        self._replies = replies
        replies.look = self._look
        self._asks = [self._asking(shard) for shard in range(keys.shards)]

    def _asking(self, shard: int) -> Batch[str, tuple[str, str, str]]:
        async def send(ids: list[str]) -> Sequence[tuple[str, str, str]]:
            flat: list[str] = await self._store.run(
                "task_wait", [self._keys.prefix(shard)], [self._replies.client, *ids]
            )
            return [(flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat), 3)]

        return Batch(send, limit=1000)

    async def _ask(self, id: str) -> Answer:
        state, result, error = await self._asks[self._keys.shard_of(id)].put(id)
        return Answer(id, state, result if state in (State.SUCCEEDED, "done") or id.startswith("vote ") else error)

    async def _look(self, ids: list[str]) -> list[Answer]:
        answers = await asyncio.gather(*(self._ask(id) for id in ids))
        return [answer for answer in answers if answer.state not in _OPEN]

    async def result(self, id: str, timeout: float | None = None, told: asyncio.Future[Answer] | None = None) -> Any:
        """The result of the task ``id``. ``told`` is the future of an answer that the record will push to this client;
        without it the record is asked, and the client put on its list.
        """
        future = told or self._replies.expect(id)
        try:
            async with asyncio.timeout(timeout):
                answer: Answer | None = None
                if told is None:
                    answer = await self._ask(id)
                if answer is None or answer.state in _OPEN:
                    answer = await future
                if answer.value is None:
                    answer = await self._ask(id)
        except TimeoutError:
            raise ResultTimeout(
                f"{id if ' ' in id else f'task {id}'} has no outcome after {timeout} s; it goes on, ask again by its id",
                id=id,
            ) from None
        finally:
            self._replies.forget(id, future)
        return _outcome(answer)


def _run_outcome(answer: Answer, said: str) -> Any:
    match answer.state:
        case "succeeded":
            return codec.decode(said, what="result", limit=64 * 1024 * 1024)
        case "failed":
            raise RunFailed(said)
        case "cancelled":
            raise RunCancelled(said or "cancelled")
        case _:
            raise RunNotFound(
                f"there is no {answer.id}: never started in this mesh, or finished longer ago than its retention"
            )


def _auction_outcome(answer: Answer, said: str) -> Any:
    id = answer.id.removeprefix("auction ")
    match answer.state:
        case "done":
            return codec.decode(said, what="result")
        case "failed":
            raise AuctionFailed(said, id=id)
        case "cancelled":
            raise AuctionCancelled(said or "cancelled", id=id)
        case "expired":
            raise AuctionExpired(said, id=id)
        case "no_bids" | "all_refused":
            raise NoBids(said, id=id)
        case _:
            raise AuctionNotFound(
                f"there is no {answer.id}: never opened in this mesh, or ended longer ago than its retention", id=id
            )


def _outcome(answer: Answer) -> Any:
    """The result, or the error that the state stands for."""
    said = answer.value or ""
    if answer.id.startswith("run "):
        return _run_outcome(answer, said)
    if answer.id.startswith("auction "):
        return _auction_outcome(answer, said)
    match answer.state:
        case State.SUCCEEDED:
            return codec.decode(said, what="result")
        case State.FAILED:
            raise TaskFailed(said, id=answer.id)
        case State.DEAD:
            raise TaskDead(said, id=answer.id)
        case State.CANCELLED:
            raise TaskCancelled(said or "cancelled", id=answer.id)
        case State.EXPIRED:
            raise TaskExpired(said, id=answer.id)
        case _:
            raise TaskNotFound(
                f"there is no task {answer.id}: never enqueued in this mesh, or finished longer ago than its retention",
                id=answer.id,
            )
