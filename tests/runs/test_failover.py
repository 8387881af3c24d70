"""A replica that lagged behind is promoted, and the agents that live on go on there."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from streammesh import Agent, Mesh, Run
from tests.eventually import eventually
from tests.line import Line
from tests.runs.tale import RESULT, make_agent
from tests.runs.test_crashes import judge
from tests.servers import Server

pytestmark = pytest.mark.anyio


class Pair:
    """A server and its replica, with a line between them that can be held."""

    def __init__(self, folder: Path) -> None:
        self.first = Server("valkey", _made(folder / "first"))
        self.replica = Server("valkey", _made(folder / "replica"))
        self.first.start()
        self.between = Line(self.first.port)

    async def follow(self) -> None:
        """Begin to replicate; returns when the replica has caught up."""
        await self.between.__aenter__()
        self.replica.start()
        port = self.between.url.rpartition(":")[2].partition("/")[0]
        await self.say("REPLICAOF", "127.0.0.1", port)

        async def up() -> bool:
            return b"master_link_status:up" in await self.say("INFO", "replication")

        await eventually(up, timeout=20)

    async def say(self, *words: str) -> Any:
        connection = redis.asyncio.Connection(port=self.replica.port)
        try:
            await connection.connect()
            await connection.send_command(*words)
            return await connection.read_response(disable_decoding=True)
        finally:
            await connection.disconnect()

    async def fail_over(self) -> None:
        """The first one dies with what is held on the line, and the replica is promoted."""
        self.first.kill()
        await self.between.__aexit__(None, None, None)
        assert await self.say("REPLICAOF", "NO", "ONE") == b"OK"

    def stop(self) -> None:
        for server in (self.first, self.replica):
            server.kill()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


#: The records of the journal before the signal is sent: start, call, done, step, timer, fired.
UNTIL_SIGNAL = 6


@pytest.mark.parametrize("known", [0, 3, 7, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 6, 9))])
async def test_a_run_goes_on_at_a_replica_that_was_promoted_with_a_lag(
    tmp_path: Path, namespace: str, known: int
) -> None:
    """c15: the replica has seen the journal up to so many records, the run has ended since. It ends once, and steps may run again."""
    pair = Pair(tmp_path)
    try:
        await pair.follow()
        async with (
            Line(pair.first.port) as line,
            Mesh.connect(line.url, namespace=namespace, patience=30) as mesh,
            Mesh.connect(line.url, namespace=namespace, patience=None) as theirs,
        ):
            agent = make_agent(line.url, namespace)
            serving = asyncio.create_task(agent.serve(theirs))
            try:
                await eventually(lambda: agent.serving is not None and agent.serving.tending.sweeps > 0, timeout=20)
                if not known:
                    pair.between.hold()
                run = await mesh.start("tale", id="r")

                async def reached(count: int) -> bool:
                    return len(await run.history()) >= count

                await eventually(lambda: reached(min(known, UNTIL_SIGNAL)), timeout=20)
                if 0 < known <= UNTIL_SIGNAL:
                    pair.between.hold()
                await run.signal("word", "told", id="only")
                if known > UNTIL_SIGNAL:
                    await eventually(lambda: reached(known), timeout=20)
                    pair.between.hold()
                assert await run.result(20) == RESULT
                if known < 9:
                    assert await pair.say("LLEN", mesh.keys.run("r") + ":journal") < len(await run.history())
                await pair.fail_over()
                line.redirect(pair.replica.port)
                # A client that got no answer, or asks again, says what it had said.
                run = await mesh.start("tale", id="r")
                await run.signal("word", "told", id="only")
                assert await run.result(30) == RESULT
                await judge(mesh, pair.replica.url, namespace, steps=2)
            finally:
                agent.stop()
                await serving
    finally:
        pair.stop()


async def test_an_execution_that_is_ahead_of_the_promoted_replica_is_not_built_upon(
    tmp_path: Path, namespace: str
) -> None:
    """c15: it has committed a step that the replica never saw, and is in the middle of the next one."""
    pair = Pair(tmp_path)
    agent = Agent("clerk", lease=2.0)
    ran: list[str] = []
    first, second, go, held = asyncio.Event(), asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def one() -> int:
        ran.append("one")
        first.set()
        await held.wait()
        return len(ran)

    async def two() -> int:
        ran.append("two")
        second.set()
        await go.wait()
        return len(ran)

    @agent.workflow("steps")
    async def steps(run: Run) -> list[int]:
        return [await run.step(one), await run.step(two)]

    try:
        await pair.follow()
        async with (
            Line(pair.first.port) as line,
            Mesh.connect(line.url, namespace=namespace, patience=30) as mesh,
            Mesh.connect(line.url, namespace=namespace, patience=None) as theirs,
        ):
            serving = asyncio.create_task(agent.serve(theirs))
            try:
                run = await mesh.start("steps", id="r")
                await asyncio.wait_for(first.wait(), 20)

                async def seen() -> bool:
                    return bool(await pair.say("HGET", mesh.keys.run("r"), "state") == b"running")

                await eventually(seen, timeout=20)
                pair.between.hold()
                held.set()
                await asyncio.wait_for(second.wait(), 20)

                async def committed() -> bool:
                    return len(await run.history()) == 2

                await eventually(committed, timeout=20)
                assert await pair.say("LLEN", mesh.keys.run("r") + ":journal") == 1
                await pair.fail_over()
                line.redirect(pair.replica.port)
                go.set()
                # Had it gone on where it stood, the journal would have the second step without the first.
                result = await run.result(30)
                assert result == [3, 4]
                assert ran == ["one", "two", "one", "two"]
                history = await run.history()
                assert [record.get("path", "") for record in history] == ["", "one.0", "two.0", ""]
                assert (await run.head()).state == "succeeded"
            finally:
                go.set()
                agent.stop()
                await serving
    finally:
        pair.stop()
