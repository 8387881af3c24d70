"""The floors: what redis-py on asyncio with hiredis reaches when it does hardly anything else.

``bare``: XREADGROUP COUNT 100, then one pipeline with SET EX of each result, XACK and XDEL of the batch.
``bare-task``: the same reading, with one asyncio task and one pipeline (SET EX, XACK, XDEL) for each entry.
No record, no fence, no lease, no retry: a crash loses a batch, and a slow worker's result overwrites another's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio as aio

from ops.bench.load import one_at_a_time, payloads, steadily

__all__ = ["QUEUE", "ROLES", "fill", "open_queue"]

QUEUE = "floor:queue"
GROUP = "floor"
REPLIES = "floor:replies"
RETENTION = 3600
BATCH = 100

Say = Callable[[Any], None]
Heard = Callable[[], Awaitable[str]]


async def open_queue(url: str) -> None:
    async with aio.Redis.from_url(url) as client:
        await client.xgroup_create(QUEUE, GROUP, "0", mkstream=True)


async def fill(url: str, count: int) -> None:
    """Add a backlog."""
    async with aio.Redis.from_url(url) as client:
        source = list(payloads(count))
        for at in range(0, count, 1000):
            pipe = client.pipeline(transaction=False)
            for payload in source[at : at + 1000]:
                pipe.xadd(QUEUE, {"payload": f'{{"n":"{payload["n"]}"}}'})
            await pipe.execute()


async def _read(client: aio.Redis, me: str) -> list[tuple[str, dict[str, str]]]:
    got: Any = await client.xreadgroup(GROUP, me, {QUEUE: ">"}, count=BATCH, block=2000)
    return got[0][1] if got else []


async def bare(url: str, say: Say, heard: Heard, *, me: str) -> None:
    async with aio.Redis.from_url(url, decode_responses=True) as client:
        await client.ping()
        say("ready")
        await heard()
        while True:
            entries = await _read(client, me)
            if not entries:
                continue
            ids = [entry for entry, _ in entries]
            pipe = client.pipeline(transaction=False)
            for entry, fields in entries:
                pipe.set(f"floor:result:{entry}", fields["payload"], ex=RETENTION)
            pipe.xack(QUEUE, GROUP, *ids)
            pipe.xdel(QUEUE, *ids)
            await pipe.execute()


async def bare_task(url: str, say: Say, heard: Heard, *, me: str) -> None:
    async with aio.Redis.from_url(url, decode_responses=True) as client:
        await client.ping()

        async def work(entry: str, fields: dict[str, str]) -> None:
            pipe = client.pipeline(transaction=False)
            pipe.set(f"floor:result:{entry}", fields["payload"], ex=RETENTION)
            pipe.xack(QUEUE, GROUP, entry)
            pipe.xdel(QUEUE, entry)
            await pipe.execute()

        say("ready")
        await heard()
        while True:
            entries = await _read(client, me)
            await asyncio.gather(*(asyncio.create_task(work(entry, fields)) for entry, fields in entries))


async def replier(url: str, say: Say, heard: Heard, *, me: str) -> None:
    """As ``bare``, and answers each entry by a push to the list that its client waits at."""
    async with aio.Redis.from_url(url, decode_responses=True) as client:
        await client.ping()
        say("ready")
        await heard()
        while True:
            entries = await _read(client, me)
            if not entries:
                continue
            ids = [entry for entry, _ in entries]
            pipe = client.pipeline(transaction=False)
            for entry, fields in entries:
                pipe.set(f"floor:result:{entry}", fields["payload"], ex=RETENTION)
                pipe.rpush(REPLIES, entry)
            pipe.xack(QUEUE, GROUP, *ids)
            pipe.xdel(QUEUE, *ids)
            await pipe.execute()


async def enqueue(url: str, say: Say, heard: Heard, *, count: int) -> None:
    """Entries per second, each awaited before the next."""
    async with aio.Redis.from_url(url) as client:
        await client.ping()
        say("ready")
        await heard()
        began = time.perf_counter()
        for payload in payloads(count):
            await client.xadd(QUEUE, {"payload": f'{{"n":"{payload["n"]}"}}'})
        say(count / (time.perf_counter() - began))


async def call(url: str, say: Say, heard: Heard, *, count: int) -> None:
    """Milliseconds from XADD to the reply, one at a time."""
    async with aio.Redis.from_url(url, decode_responses=True) as client:
        await client.ping()
        say("ready")
        await heard()

        async def once() -> None:
            await client.xadd(QUEUE, {"payload": "{}"})
            await client.blpop([REPLIES], 10)

        say(await one_at_a_time(once, count))


async def steady(url: str, say: Say, heard: Heard, *, count: int, rate: float) -> None:
    """Milliseconds from XADD to the reply, at a steady rate."""
    async with aio.Redis.from_url(url, decode_responses=True) as client:
        await client.ping()
        waiting: dict[str, asyncio.Future[None]] = {}
        loop = asyncio.get_running_loop()

        def future_of(entry: str) -> asyncio.Future[None]:
            return waiting.setdefault(entry, loop.create_future())

        async def listen() -> None:
            while True:
                got: Any = await client.blpop([REPLIES], 0)
                future_of(got[1]).set_result(None)

        async def once() -> None:
            entry: Any = await client.xadd(QUEUE, {"payload": "{}"})
            # The reply may have overtaken the answer to XADD.
            await future_of(entry)
            del waiting[entry]

        say("ready")
        await heard()
        listener = asyncio.create_task(listen())
        say({"result": await steadily(once, count, rate)})
        listener.cancel()


ROLES: dict[str, Callable[..., Awaitable[None]]] = {
    "bare": bare,
    "bare-task": bare_task,
    "bare-replier": replier,
    "bare-enqueue": enqueue,
    "bare-call": call,
    "bare-steady": steady,
}
