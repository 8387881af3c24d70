"""The load that floors and streammesh are put under: the same payloads, the same clocks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

__all__ = ["one_at_a_time", "payloads", "steadily"]

#: Round trips that are made before the clock counts.
WARM_UP = 50


def payloads(count: int) -> Iterator[dict[str, str]]:
    """Payloads of 20 bytes as JSON."""
    return ({"n": f"{n:012}"} for n in range(count))


async def one_at_a_time(once: Callable[[], Awaitable[None]], count: int) -> list[float]:
    """Milliseconds of each of ``count`` calls."""
    took = []
    for _ in range(WARM_UP + count):
        began = time.perf_counter_ns()
        await once()
        took.append((time.perf_counter_ns() - began) / 1e6)
    return took[WARM_UP:]


async def steadily(once: Callable[[], Awaitable[None]], count: int, rate: float) -> list[float]:
    """Milliseconds of each of ``count`` calls that begin ``rate`` times a second, however long each takes.

    The clock of a call starts when its task is made: a client whose loop lags shows it.
    """
    # Not the loop's own clock: uvloop's counts in whole milliseconds.
    clock = time.perf_counter
    took: list[float] = []
    began = clock()

    async def timed(made: float) -> None:
        await once()
        took.append((clock() - made) * 1000)

    calls = []
    for n in range(WARM_UP + count):
        # The timer is good to a millisecond only, so a call may begin late; the next ones make up for it.
        if (left := began + n / rate - clock()) > 0:
            await asyncio.sleep(left)
        calls.append(asyncio.create_task(timed(clock())))
    await asyncio.gather(*calls)
    return took[WARM_UP:]
