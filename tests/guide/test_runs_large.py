"""Large values in runs: kept beside the journal, which stays readable; whole wherever they are used."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis

from streammesh import Agent, Mesh, Run
from streammesh.errors import PayloadTooLarge, StepFailed
from streammesh.testing import assert_replays, run_until_idle

BOOK = "It was a dark and stormy night. " * 2000  # 64 KB


def printer() -> Agent:
    agent = Agent("printer")

    @agent.capability("print")
    async def print_it(text: str) -> dict[str, Any]:
        return {"printed": text}

    @agent.workflow("press")
    async def press(run: Run, manuscript: str, rounds: int = 0) -> str:
        copy = await run.step(str.upper, manuscript)
        printed = await run.call("print", text=copy)
        review = await run.signal("review")
        if rounds:
            run.continue_as_new(manuscript=manuscript, rounds=rounds - 1)
        return str(printed["printed"] + review)

    return agent


async def test_the_journal_says_how_large_and_the_run_gets_all_of_it(mesh: Mesh) -> None:
    run = await mesh.start("press", manuscript=BOOK, id="large")
    await run.signal("review", BOOK)
    await run_until_idle(mesh, printer())
    assert await run.result(timeout=10) == BOOK.upper() + BOOK
    key = mesh.keys.run("large")
    lines = await mesh.store.command("LRANGE", key + ":journal", 0, -1)
    assert max(map(len, lines)) < 500
    assert next(line for line in lines if '"large":' in line).startswith(
        '{"what":"start","workflow":"press","version":1,'
    )
    history = await run.history()
    assert [record["what"] for record in history] == ["start", "signal", "step", "call", "done", "end"]
    assert history[4]["result"] == {"printed": BOOK.upper()}
    assert_replays(press_of(), history)
    # It ends with the run.
    assert await mesh.store.command("PTTL", key + ":large") > 0


def press_of() -> Any:
    return printer().workflows["press"].function


async def test_what_begins_anew_takes_nothing_along(mesh: Mesh) -> None:
    run = await mesh.start("press", manuscript=BOOK, rounds=1, id="anew")
    await run.signal("review", "good")
    await run.signal("review", BOOK)
    await run_until_idle(mesh, printer())
    assert await run.result(timeout=10) == BOOK.upper() + BOOK
    places = await mesh.store.command("HKEYS", mesh.keys.large("anew"))
    assert len(places) == len([one for one in await run.history() if len(str(one)) > 16_384])


async def test_a_fork_has_its_own(mesh: Mesh) -> None:
    run = await mesh.start("press", manuscript=BOOK, id="origin")
    await run.signal("review", "good")
    await run_until_idle(mesh, printer())
    fork = await run.fork(from_step="print.0", id="copy")
    await mesh.store.command("DEL", mesh.keys.large("origin"))
    await run_until_idle(mesh, printer())
    assert await fork.result(timeout=10) == BOOK.upper() + "good"


async def test_there_is_an_end_to_it(mesh: Mesh) -> None:
    agent = Agent("printer")

    @agent.workflow("huge")
    async def huge(run: Run) -> str:
        try:
            await run.step(lambda: "x" * 2_000_000)
        except StepFailed as failed:
            return str(failed)
        return "?"

    run = await mesh.start("huge")
    await run_until_idle(mesh, agent)
    assert "1048576 are allowed; store it elsewhere and pass a reference" in await run.result(timeout=10)
    with pytest.raises(PayloadTooLarge):
        await mesh.start("press", manuscript="x" * 2_000_000)


async def test_it_is_redis_cli_that_shows_it(mesh: Mesh, redis: Redis) -> None:
    run = await mesh.start("press", manuscript=BOOK, id="shown")
    assert await redis.hkeys(mesh.keys.large("shown")) == ["0"]
    await run.terminate()
    assert await redis.pttl(mesh.keys.large("shown")) > 0
