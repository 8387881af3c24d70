"""Handlers that end in unusual ways: each attempt is settled, the agent lives, and the tasks beside it are done."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from streammesh import Agent, Mesh, Message, Reject, Retry, State
from streammesh.errors import RemoteError, TaskDead
from streammesh.testing import leaked_keys, run_until_idle
from tests.eventually import eventually


@pytest.fixture
async def mesh(url: str, namespace: str) -> AsyncIterator[Mesh]:
    async with Mesh.connect(url, namespace=namespace) as mesh:
        yield mesh


class Wordless(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


class Careless(BaseException):
    pass


def recurse() -> None:
    recurse()


def fail_with(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


WAYS: dict[str, tuple[Callable[[], Any], str]] = {
    "it cancels itself": (fail_with(asyncio.CancelledError()), "cancelled itself"),
    "it was cancelled from a thread": (fail_with(concurrent.futures.CancelledError()), "[cC]ancelled"),
    "it leaves the program": (lambda: sys.exit(3), "SystemExit: 3"),
    "its iterator is at its end": (lambda: next(iter([])), "StopIteration"),
    "it never stops calling itself": (recurse, "RecursionError"),
    "its error cannot be told": (fail_with(Wordless()), "Wordless"),
    "its error is no text": (fail_with(ValueError("\ud800 and \udcff")), r"ValueError: \\ud800 and \\udcff"),
    "its error is endless": (fail_with(ValueError("x" * 10_000_000)), "ValueError: xxx"),
    "its error holds odd characters": (fail_with(ValueError("\x00\r\n\x1b[31m")), "ValueError: \x00\r\n\x1b"),
    "it comes again at the end of time": (fail_with(Retry(float("inf"))), "inf"),
    "it is careless": (fail_with(Careless("oops")), "Careless: oops"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("isolation", ["inline", "thread"])
async def test_an_odd_ending_is_a_failure_like_any_other(mesh: Mesh, way: str, isolation: str) -> None:
    end, said = WAYS[way]
    agent = Agent("odd", slots=8)

    async def inline() -> Any:
        await asyncio.sleep(0)
        return end()

    agent.capability("end", isolation=isolation)(inline if isolation == "inline" else end)  # type: ignore[arg-type]

    @agent.capability("fine")
    async def fine(n: int) -> int:
        return n

    odd = await mesh.enqueue("end")
    beside = [await mesh.enqueue("fine", n=n) for n in range(5)]
    report = await run_until_idle(mesh, agent, timeout=5)
    assert (report.succeeded, report.dead) == (5, 1)
    assert [await task.result(1) for task in beside] == list(range(5))
    with pytest.raises(TaskDead, match=said):
        await odd.result(1)
    assert await leaked_keys(mesh) == []


async def test_a_rejection_that_is_no_text_is_still_an_answer(mesh: Mesh) -> None:
    agent = Agent("odd")
    agent.capability("refuse")(fail_with(Reject("\ud800")))
    task = await mesh.enqueue("refuse")
    await run_until_idle(mesh, agent, timeout=5)
    assert ((await task.record()).state, (await task.record()).error) == (State.FAILED, "\\ud800")


@pytest.mark.parametrize("way", [way for way in WAYS if "end of time" not in way and "careless" not in way])
async def test_an_odd_ending_of_a_message_handler_is_told_to_who_asked(mesh: Mesh, way: str) -> None:
    end, said = WAYS[way]
    agent = Agent("odd", lease=1.0, slots=2)
    agent.on("plain")(lambda message: end())

    @agent.on("async")
    async def inline(message: Message) -> Any:
        await asyncio.sleep(0)
        return end()

    agent.on("echo")(lambda message: message.payload)
    serving = asyncio.create_task(agent.serve(mesh))
    await eventually(lambda: agent.serving and agent.serving.tending.sweeps)
    for type in ("plain", "async"):
        with pytest.raises(RemoteError, match=said.replace("cancelled itself", "CancelledError")):
            await mesh.request(type, to="odd", timeout=3)
    assert await mesh.request("echo", 1, to="odd", timeout=3) == 1
    agent.stop()
    await serving


@pytest.mark.parametrize(
    "returned", [(n for n in [1]), lambda: 1, Exception("x")], ids=["generator", "function", "exception"]
)
async def test_what_is_no_json_is_no_result(mesh: Mesh, returned: Any) -> None:
    agent = Agent("odd")

    @agent.capability("give")
    async def give() -> Any:
        return returned

    task = await mesh.enqueue("give")
    await run_until_idle(mesh, agent, timeout=5)
    with pytest.raises(TaskDead, match="the result is not JSON"):
        await task.result(1)
