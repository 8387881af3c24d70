"""Finding runs again: the newest first, by state, by workflow, by when they were started."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from streammesh import Mesh, Run
from streammesh.errors import InvalidPayload
from tests.guide.conftest import Serve
from tests.guide.library import library, reaches


async def test_runs_are_listed_newest_first_and_by_state(mesh: Mesh, serve: Serve) -> None:
    agent = library()

    @agent.workflow("wait")
    async def wait(run: Run, until: str) -> str:
        return str(await run.signal(until))

    @agent.workflow("greet")
    async def greet(run: Run) -> str:
        return "hello"

    await serve(agent)
    first = await mesh.start("wait", until="go", id="first")
    await reaches(first, "parked")
    second = await mesh.start("greet", id="second")
    assert await second.result(10) == "hello"
    absent = await mesh.start("wait", until="go", version=2, id="third")
    assert [head.id for head in await mesh.runs()] == ["third", "second", "first"]
    assert [head.state for head in await mesh.runs(limit=2)] == ["queued", "succeeded"]
    assert [head.id for head in await mesh.runs("parked")] == ["first"]
    assert [head.id for head in await mesh.runs("open")] == ["third", "first"]
    assert [head.id for head in await mesh.runs(("succeeded", "queued"))] == ["third", "second"]
    assert [head.id for head in await mesh.runs(workflow="wait")] == ["third", "first"]
    assert [head.id for head in await mesh.runs(workflow="wait@2")] == ["third"]
    began = datetime.fromisoformat((await second.head()).fields["started_at"])
    assert [head.id for head in await mesh.runs(since=began)] == ["third", "second"]
    assert await mesh.runs(since=datetime.now(UTC) + timedelta(hours=1)) == []
    await absent.terminate()
    await first.signal("go")
    await first.result(10)


async def test_what_cannot_be_meant_is_refused(mesh: Mesh) -> None:
    with pytest.raises(InvalidPayload, match=r"'done' is no state of a run; expected open, queued"):
        await mesh.runs("done")
    with pytest.raises(InvalidPayload, match="no time zone"):
        await mesh.runs(since=datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(InvalidPayload, match="limit=0"):
        await mesh.runs(limit=0)
