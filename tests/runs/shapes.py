"""A corpus of workflow shapes, and what the world outside answers them: nothing here knows of a server.

Capabilities: `echo` gives its `v` back, `refuse` is answered 'failed', `lose` ends dead. Child runs give their ids back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from streammesh.errors import MeshError, TaskCancelled
from streammesh.workflow import Run

Function = Callable[..., Coroutine[Any, Any, Any]]


@dataclass(frozen=True)
class Shape:
    """A workflow and what happens to it: signals that are sent at some time, whether somebody cancels it."""

    name: str
    function: Function
    signals: tuple[tuple[str, Any], ...] = ()
    #: Signals that the run is started with.
    first: tuple[tuple[str, Any], ...] = ()
    cancel: bool = False


SHAPES: dict[str, Shape] = {}


def shape(
    *, signals: tuple[tuple[str, Any], ...] = (), first: tuple[tuple[str, Any], ...] = (), cancel: bool = False
) -> Callable[[Function], Function]:
    def add(function: Function) -> Function:
        name = function.__name__
        SHAPES[name] = Shape(name, function, signals, first, cancel)
        return function

    return add


def double(n: int) -> int:
    return 2 * n


def explode() -> None:
    raise ValueError("no good")


@shape()
async def sequence(run: Run) -> Any:
    total = 0
    for n in range(4):
        total += await run.call("echo", v=n)
    return total


@shape()
async def nothing(run: Run) -> Any:
    return {"id": run.id, "now": run.now().isoformat()}


@shape()
async def gathered(run: Run) -> Any:
    return await asyncio.gather(*(run.call("echo", v=n) for n in range(5)))


@shape()
async def mapped(run: Run) -> Any:
    return await run.map("echo", [{"v": n} for n in range(6)], limit=2)


@shape()
async def failing_map(run: Run) -> Any:
    try:
        await asyncio.gather(run.call("echo", v=1), run.call("refuse"), run.map("lose", [{}, {}]))
    except MeshError as error:
        return [type(error).__name__, str(error)]


@shape()
async def race(run: Run) -> Any:
    tasks = [asyncio.create_task(run.call("echo", v=n)) for n in range(3)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    winners = [task.result() for task in done]
    return [winners, await run.call("echo", v="after")]


@shape()
async def completed(run: Run) -> Any:
    order = []
    for one in asyncio.as_completed([run.call("echo", v=n) for n in range(4)]):
        order.append(await one)
        await run.call("echo", v=-1)
    return order


@shape()
async def timeouts(run: Run) -> Any:
    heard = []
    for seconds in (5, 10):
        try:
            async with asyncio.timeout(seconds):
                heard.append(await run.call("echo", v=seconds))
        except TimeoutError:
            heard.append("late")
    try:
        heard.append(await asyncio.wait_for(run.call("echo", v="w"), 3))
    except TimeoutError:
        heard.append("late")
    return heard


@shape()
async def groups(run: Run) -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run.call("echo", v=n)) for n in range(3)]
    said: list[str] = []
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(run.call("echo", v=1))
            group.create_task(run.call("refuse"))
            group.create_task(run.sleep(100))
    except* MeshError as several:
        said = sorted(str(error) for error in several.exceptions)
    return [[task.result() for task in tasks], said]


@shape()
async def nested(run: Run) -> Any:
    async def leaf(n: int) -> Any:
        first = await run.call("echo", v=n)
        return first + await run.call("echo", v=10 * n)

    async def branch(n: int) -> Any:
        return await asyncio.gather(leaf(n), leaf(n + 1))

    return await asyncio.gather(branch(1), branch(3), run.call("echo", v=0))


@shape()
async def children(run: Run) -> Any:
    waited = asyncio.create_task(run.child("kid", n=1))
    detached = await run.child("kid", id="named", wait=False, close="abandon", n=2)
    return [await waited, detached, await run.child("kid", n=3)]


@shape(first=(("go", 1),), signals=(("go", 2), ("go", 3), ("other", "x")))
async def signalled(run: Run) -> Any:
    first = await run.signal("go")
    called = await run.call("echo", v="c")
    rest = [await run.signal("go"), await run.signal("go")]
    return [first, called, rest, await run.signal("other")]


@shape(signals=(("go", 1),))
async def awaited_signal(run: Run) -> Any:
    try:
        return await run.signal("go", timeout=5)
    except TimeoutError:
        return ["late", await run.signal("go")]


@shape(cancel=True)
async def cancelled(run: Run) -> Any:
    try:
        await run.call("echo", v=1)
        await run.sleep(1_000)
        await run.signal("never")
    finally:
        await run.call("echo", v="cleanup")


@shape(cancel=True)
async def stubborn(run: Run) -> Any:
    try:
        await run.signal("never")
    except asyncio.CancelledError:
        return ["no", await run.call("echo", v=1)]


@shape()
async def saga(run: Run) -> Any:
    log: list[Any] = []

    async def undo(n: int) -> None:
        log.append(await run.call("echo", v=-n))

    try:
        async with run.saga() as steps:
            for n in (1, 2, 3):
                await run.call("echo", v=n)
                steps.undo(undo, n)
            await run.call("refuse")
    except MeshError:
        return log


@shape(signals=(("word", "a"), ("word", "b")))
async def again(run: Run, round: int = 0) -> Any:
    heard = await run.call("echo", v=round)
    detached = await run.child("kid", wait=False, close="abandon", n=round)
    left_over = asyncio.create_task(run.sleep(5_000))
    if round < 2:
        run.continue_as_new(round=round + 1)
    words = [await run.signal("word"), await run.signal("word")]
    return [heard, detached, words, str(run.uuid()), left_over.done()]


@shape()
async def patched(run: Run) -> Any:
    said = []
    for n in range(3):
        await run.call("echo", v=n)
        if run.patched("louder"):
            said.append(await run.call("echo", v="new"))
    return said


@shape()
async def local(run: Run) -> Any:
    first = await run.step(double, 3)
    both = await asyncio.gather(run.step(double, first), run.call("echo", v=1), run.step(double, 1))
    try:
        await run.step(explode)
    except MeshError as error:
        return [first, both, str(error)]


@shape()
async def once(run: Run) -> Any:
    return [await run.step(double, 3, at_most_once=True), await run.call("echo", v=1)]


@shape()
async def sleeping(run: Run) -> Any:
    start = run.now()
    await run.sleep(30 * 86_400)
    await asyncio.gather(run.sleep(3), run.sleep(2), asyncio.sleep(0))
    return (run.now() - start).total_seconds() >= 30 * 86_400 + 3


@shape(signals=(("stop", None),))
async def primitives(run: Run) -> Any:
    queue: asyncio.Queue[Any] = asyncio.Queue(maxsize=1)
    lock, ready, heard = asyncio.Lock(), asyncio.Event(), []

    async def produce(n: int) -> None:
        await ready.wait()
        async with lock:
            await queue.put(await run.call("echo", v=n))

    async def consume() -> None:
        for _ in range(3):
            heard.append(await queue.get())

    async with asyncio.TaskGroup() as group:
        for n in range(3):
            group.create_task(produce(n))
        group.create_task(consume())
        await run.signal("stop")
        ready.set()
    return heard


@shape()
async def shielded(run: Run) -> Any:
    inner = asyncio.ensure_future(run.call("echo", v="kept"))
    try:
        async with asyncio.timeout(1):
            await asyncio.shield(inner)
    except TimeoutError:
        return ["late", await inner]
    return await inner


@shape()
async def chance(run: Run) -> Any:
    picks = [run.random().randrange(1000) for _ in range(3)]
    await run.call("echo", v=picks)
    run.set_status(picks=picks)
    return [picks, run.random().random(), str(run.uuid()), str(run.uuid())]


@shape(signals=(("a", 1), ("b", 2)))
async def callbacks(run: Run) -> Any:
    """Tasks made by callbacks, where no task is current, have paths of their own."""
    heard: list[Any] = []
    loop = asyncio.get_running_loop()
    made: list[asyncio.Task[Any]] = []

    def make(n: int) -> None:
        made.append(asyncio.ensure_future(run.call("echo", v=n)))

    for n in range(2):
        loop.call_soon(make, n)
    heard.append(await run.call("echo", v="mine"))
    return heard + [await task for task in made] + [await run.signal("b"), await run.signal("a")]


@shape()
async def cancelled_task(run: Run) -> Any:
    task = asyncio.create_task(run.call("echo", v=1))
    await run.sleep(1)
    task.cancel()
    try:
        return await task
    except (asyncio.CancelledError, TaskCancelled):
        return "cancelled"
