"""Coalescing: many callers, few round trips.

The first call goes out at once; what arrives while it is under way goes out together when it returns. No timer, so a
single caller waits for nothing, and a thousand concurrent callers share a handful of round trips.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["Batch"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batch(Generic[Item, Result]):
    """Sends items through ``send``, which takes a list of items and returns a result for each, in order.

    ``limit`` bounds the items of one round trip, ``weight`` and ``heaviest`` their bytes.
    """

    def __init__(
        self,
        send: Callable[[list[Item]], Awaitable[Sequence[Result]]],
        *,
        limit: int = 500,
        weight: Callable[[Item], int] | None = None,
        heaviest: int = 4 * 1024 * 1024,
    ) -> None:
        self._send = send
        self._limit = limit
        self._weight = weight
        self._heaviest = heaviest
        self._busy = False
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._drainer: asyncio.Task[None] | None = None

    async def put(self, item: Item) -> Result:
        """Send ``item``, alone or in company, and return its result; raises what ``send`` raises."""
        if not self._busy:
            self._busy = True
            try:
                return (await self._send([item]))[0]
            finally:
                if self._waiting:
                    self._drainer = asyncio.create_task(self._drain())
                else:
                    self._busy = False
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        return await future

    def _take(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        count = min(len(self._waiting), self._limit)
        if self._weight:
            bytes_ = 0
            for n in range(count):
                bytes_ += self._weight(self._waiting[n][0])
                if bytes_ > self._heaviest and n:
                    count = n
                    break
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken

    async def _drain(self) -> None:
        taken: list[tuple[Item, asyncio.Future[Result]]] = []
        try:
            while self._waiting:
                taken = self._take()
                try:
                    results = await self._send([item for item, _ in taken])
                except Exception as error:
                    for _, future in taken:
                        if not future.done():
                            future.set_exception(error)
                else:
                    for (_, future), result in zip(taken, results, strict=True):
                        if not future.done():
                            future.set_result(result)
        finally:
            self._busy = False
            for _, future in taken + self._waiting:
                if not future.done():
                    future.cancel()
            self._waiting = []
