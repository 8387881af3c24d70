"""The work of a chaos run, and the producer that brings it: every error is *unknown*, and the same call is made again.

What is enqueued is decided by the seed; when each call gets through is the faults' business.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count, groupby
from typing import Any

from streammesh import Mesh, MeshError
from streammesh.errors import (
    PayloadConflict,
    ResultTimeout,
    StoreUnavailable,
    TaskCancelled,
    TaskDead,
    TaskError,
    TaskExpired,
    TaskFailed,
    TaskNotFound,
    UnknownAgent,
)
from tests.chaos.history import Recorder
from tests.chaos.victim import RETRIES

__all__ = ["Item", "Producer", "make_load"]

#: What a waiting client is told -> the state that it stands for.
STATES: dict[type[TaskError], str] = {
    TaskFailed: "failed",
    TaskDead: "dead",
    TaskCancelled: "cancelled",
    TaskExpired: "expired",
    TaskNotFound: "missing",
}


@dataclass(slots=True)
class Item:
    """One task to be: what it is, how it is enqueued, and what else the producer does about it."""

    id: str
    capability: str
    payload: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    waits: bool = False
    #: Seconds after its acceptance at which it is cancelled, enqueued again, or enqueued with another payload.
    cancel: float | None = None
    again: float | None = None
    conflict: float | None = None

    @property
    def outcomes(self) -> set[str]:
        """The states in which it may end, given that its agents may die three times (poison)."""
        usual = {"doomed": {"dead"}}.get(self.capability, {"succeeded", "dead"})
        if self.payload.get("reject"):
            usual = {"failed", "dead"}
        return (
            usual
            | ({"expired"} if "deadline" in self.options else set())
            | ({"cancelled"} if self.cancel is not None else set())
        )


def make_load(seed: int, size: int, lease: float) -> list[Item]:
    """``size`` tasks of every kind. Children of `chain` come on top."""
    dice = random.Random(f"load {seed}")
    kinds = {"quick": 58, "thread": 12, "flaky": 15, "doomed": 2, "slow": 4, "chain": 9}
    items = []
    for n in range(size):
        capability = dice.choices(list(kinds), list(kinds.values()))[0]
        payload: dict[str, Any] = {"n": n, "ms": dice.randint(1, 80)}
        if capability == "slow":
            payload["ms"] = int(1000 * lease * dice.uniform(1.2, 2.2))
        if capability == "flaky":
            payload["fails"] = dice.randint(0, RETRIES["flaky"] // 2)
        if capability == "quick":
            match dice.randrange(20):
                case 0:
                    payload["reject"] = True
                case 1 | 2:
                    payload["again"] = dice.randint(1, 2)
        item = Item(f"t{n}", capability, payload)
        match dice.randrange(25):
            case 0 | 1:
                item.options["delay"] = round(dice.uniform(0.05, 2.5), 3)
            case 2 | 3:
                item.options["priority"] = "high"
            case 4 | 5:
                item.options["priority"] = "low"
            case 6:
                item.options["to"] = f"a{dice.randrange(4)}"
            case 7:
                item.options["deadline"] = round(dice.uniform(0.3, 4.0), 3)
        match dice.randrange(25):
            case 0:
                item.cancel = dice.uniform(0.0, 1.0)
            case 1:
                item.again = dice.uniform(0.0, 3.0)
            case 2:
                item.conflict = dice.uniform(0.0, 3.0)
        item.waits = dice.random() < 0.1
        items.append(item)
    return items


class Producer:
    """Brings ``items`` at about ``rate`` a second, and waits, cancels and repeats as they say."""

    def __init__(self, mesh: Mesh, recorder: Recorder, items: list[Item], rate: float, seed: int) -> None:
        self._mesh = mesh
        self._recorder = recorder
        self._items = items
        self._rate = rate
        self._dice = random.Random(f"producer {seed}")
        self.accepted = 0

    async def run(self) -> None:
        """Return when everything is accepted, and everything asked for besides is answered."""
        began = time.monotonic()
        sent = 0
        async with asyncio.TaskGroup() as self._group:
            for batch in self._batches():
                self._group.create_task(self._bring(batch))
                sent += len(batch)
                await asyncio.sleep(max(0.0, began + sent / self._rate - time.monotonic()))

    def _batches(self) -> Iterator[list[Item]]:
        """Mostly single tasks, now and then many of one kind at once."""
        at = 0
        while at < len(self._items):
            size = self._dice.choice((1, 1, 1, 1, 1, 1, 25))
            some = self._items[at : at + size]
            at += size
            if size == 1:
                yield some
            else:
                key = lambda item: (item.capability, sorted(item.options.items()))  # noqa: E731
                for _, same in groupby(sorted(some, key=lambda item: str(key(item))), key):
                    yield list(same)

    async def _bring(self, items: list[Item]) -> None:
        for tries in count(1):
            verdicts = await self._enqueue(items)
            if verdicts is not None:
                break
            if "to" in items[0].options and self._dice.random() < 0.5:
                # The agent may be gone for good: then any will do.
                for item in items:
                    del item.options["to"]
            await asyncio.sleep(self._dice.uniform(0.02, 0.2) * min(tries, 5))
        self.accepted += len(items)
        for item in items:
            if item.waits:
                self._group.create_task(self._wait(item))
            if item.cancel is not None:
                self._group.create_task(self._cancel(item, item.cancel))
            for after, payload in ((item.again, item.payload), (item.conflict, {**item.payload, "n": -1})):
                if after is not None:
                    self._group.create_task(self._repeat(item, after, payload))

    async def _enqueue(self, items: list[Item], payload: dict[str, Any] | None = None) -> list[Any] | None:
        """One call; the verdicts, or None when nobody knows or there is no such agent."""
        first = items[0]
        about = {"capability": first.capability, **first.options}
        if "delay" in first.options:
            about["due"] = int((time.time() + first.options["delay"]) * 1000)
        if payload is not None and payload != first.payload:
            about["other"] = True
        with ExitStack() as stack:
            calls = [stack.enter_context(self._recorder.call("enqueue", item.id, **about)) for item in items]
            try:
                if len(items) == 1:
                    verdicts: list[Any] = [
                        await self._mesh.enqueue(
                            first.capability, payload or first.payload, id=first.id, **first.options
                        )
                    ]
                else:
                    verdicts = await self._mesh.enqueue_many(
                        first.capability,
                        [item.payload for item in items],
                        ids=[item.id for item in items],
                        **first.options,
                    )
            except PayloadConflict as conflict:
                verdicts = [conflict]
            except UnknownAgent as error:
                for call in calls:
                    call.fail(error=str(error))
                return None
            except MeshError as error:
                for call in calls:
                    call.info(error=str(error))
                return None
            for call, verdict in zip(calls, verdicts, strict=True):
                if isinstance(verdict, PayloadConflict):
                    call.fail(conflict=True)
                else:
                    call.ok(created=verdict.created)
        return verdicts

    async def _wait(self, item: Item) -> None:
        while True:
            with self._recorder.call("result", item.id) as call:
                try:
                    value = await self._mesh.task(item.id).result(timeout=15.0)
                except ResultTimeout:
                    continue
                except TaskError as error:
                    call.ok(state=STATES[type(error)])
                    return
                except StoreUnavailable:
                    await asyncio.sleep(0.1)
                    continue
                call.ok(state="succeeded", value=value)
                return

    async def _cancel(self, item: Item, after: float) -> None:
        await asyncio.sleep(after)
        while True:
            with self._recorder.call("cancel", item.id) as call:
                try:
                    call.ok(word=await self._mesh.task(item.id).cancel(by="chaos"))
                    return
                except MeshError as error:
                    call.info(error=str(error))
            await asyncio.sleep(0.1)

    async def _repeat(self, item: Item, after: float, payload: dict[str, Any]) -> None:
        await asyncio.sleep(after)
        while True:
            if await self._enqueue([item], payload) is not None:
                return
            await asyncio.sleep(0.1)
