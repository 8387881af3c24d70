"""`trace` rebuilds one tree of a flow, and `events` tells what happened."""

from __future__ import annotations

import asyncio
from typing import Any

from streammesh import Agent, Mesh, Message, Run, TaskContext
from tests.cli.conftest import Cli
from tests.eventually import eventually


def office() -> Agent:
    agent = Agent("office")

    @agent.workflow("digest")
    async def digest(run: Run) -> Any:
        return [await run.call("read", page=n) for n in range(2)]

    @agent.capability("read")
    async def read(page: int, ctx: TaskContext) -> int:
        await ctx.mesh.broadcast("page", page)
        if page:
            await ctx.mesh.enqueue("file", page=page)
        return page

    @agent.capability("file")
    async def file(page: int) -> int:
        return page

    @agent.capability("begin")
    async def begin(ctx: TaskContext) -> str:
        await ctx.mesh.request("ask", to="office")
        return (await ctx.mesh.start("digest", id="traced-run")).id

    @agent.on("ask")
    async def ask(message: Message) -> int:
        await message.mesh.send("office", "spoilt")
        return 1

    @agent.on("spoilt")
    async def spoilt(_: Message) -> None:
        raise ValueError("no good")

    return agent


async def work(cli: Cli) -> None:
    agent = office()
    async with Mesh.connect(cli.url, namespace=cli.namespace) as mesh:
        serving = asyncio.create_task(agent.serve(mesh))
        await eventually(lambda: agent.serving is not None and bool(agent.serving.id))
        await mesh.enqueue("begin", id="root")
        await mesh.task("root").result(timeout=10)
        assert await mesh.run("traced-run").result(timeout=10) == [0, 1]

        async def filed() -> bool:
            settled = agent.serving is not None and agent.serving.claims.settled >= 4
            return settled and bool(await mesh.store.command("XLEN", mesh.keys.dead("inbox")))

        await eventually(filed)
        agent.stop()
        await serving


def kinds(node: Any, depth: int = 0) -> list[tuple[int, str, str, str]]:
    below = [line for child in node["children"] for line in kinds(child, depth + 1)]
    return [(depth, node["kind"], node.get("name", ""), node.get("state", "")), *below]


def test_everything_that_a_task_caused_is_one_tree(cli: Cli) -> None:
    asyncio.run(work(cli))
    tree = cli.ok("trace", "root", "--json").json
    assert sorted(kinds(tree)) == sorted(
        [
            (0, "task", "begin", "succeeded"),
            (1, "message", "ask", "replied"),
            (2, "message", "spoilt", "dead"),
            (1, "run", "digest", "succeeded"),
            (2, "task", "read", "succeeded"),
            (3, "message", "page", "sent"),
            (2, "task", "read", "succeeded"),
            (3, "message", "page", "sent"),
            (3, "task", "file", "succeeded"),
        ]
    )
    assert cli.ok("trace", "traced-run", "--json").json == tree, "by the id of anything in it"
    text = cli.ok("trace", "root").lines
    assert text[0].startswith("task  begin  root  succeeded  on office.")
    assert any("message  spoilt" in line and "ValueError: no good" in line for line in text)
    assert len(cli.ok("trace", "root", "-q").lines) == len(text) == 9
    missing = cli("trace", "nothing-like-it")
    assert (missing.code, missing.out) == (4, "")
    assert "nothing is known of a flow nothing-like-it" in missing.err


def test_events_by_type_and_flow(cli: Cli) -> None:
    asyncio.run(work(cli))
    kinds = {event["type"] for event in cli.ok("events", "--json").objects}
    assert "run.succeeded" in kinds
    only = cli.ok("events", "--json", "--type", "run.").objects
    assert {event["type"].partition(".")[0] for event in only} == {"run"}
    assert cli.ok("events", "--json", "--type", "run.succeeded", "--since", "1h").objects == [
        event for event in only if event["type"] == "run.succeeded"
    ]
    assert cli.ok("events", "--correlation", "nobody").out == ""


def test_what_came_to_a_boundary_is_counted_and_told(cli: Cli) -> None:
    async def work() -> str:
        agent = Agent("parrot")

        @agent.on("say")
        async def say(message: Message) -> None:
            await message.mesh.send("parrot", "say")

        async with Mesh.connect(cli.url, namespace=cli.namespace) as mesh:
            serving = asyncio.create_task(agent.serve(mesh))
            await eventually(lambda: agent.serving is not None and bool(agent.serving.id))
            id = await mesh.send("parrot", "say")

            async def told() -> bool:
                return (await mesh.status.overview()).refused == {"hops": 1}

            await eventually(told)
            agent.stop()
            await serving
            return id

    flow = asyncio.run(work())
    assert cli.ok("info", "--json").json["refused"] == {"hops": 1}
    assert "boundaries of flows: hops 1" in cli.ok("info").out
    (event,) = cli.ok("events", "--json", "--type", "boundary.reached", "--correlation", flow).objects
    assert (event["guard"], event["limit"], event["what"]) == ("hops", "16", "message say")
    assert len(cli.ok("trace", flow, "-q").lines) == 17
