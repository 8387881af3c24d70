"""A task that came by a bare XADD has one id: the one that is shown while it waits is the one of its record later."""

from __future__ import annotations

import pytest

from streammesh import Agent, Mesh, State
from streammesh.causes import Causes
from streammesh.listing import Listing
from streammesh.testing import run_until_idle


@pytest.mark.parametrize("shard", [0, 1])
@pytest.mark.parametrize("lane", ["normal", "high"])
async def test_the_id_that_is_shown_is_the_id_that_it_gets(url: str, namespace: str, lane: str, shard: int) -> None:
    agent = Agent("reader")

    @agent.capability("read")
    async def read(page: int) -> int:
        return page

    async with Mesh.connect(url, namespace=namespace, shards=2) as mesh:
        # So that the capability is known: a stream that nobody has served is nobody's.
        await run_until_idle(mesh, agent)
        await mesh.enqueue("read", page=0, priority=lane)
        await mesh.store.command("XADD", mesh.keys.tasks("read", lane, shard), "*", "payload", '{"page": 7}')
        listed = (await Listing(mesh.store, mesh.keys).tasks({State.QUEUED})).records
        (id,) = (record.id for record in listed if record.id.startswith("r"))
        assert (await Causes(mesh.store, mesh.keys).explain(id)).word == "nobody"
        await run_until_idle(mesh, agent)
        assert await mesh.task(id).result(timeout=5) == 7
