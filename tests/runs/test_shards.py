"""A run and all that belongs to it live in one shard, so that a commit needs no outbox; and a lost reply changes nothing."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import Any

import pytest

from streammesh import Agent, Mesh, Run
from streammesh.store import Link
from tests.eventually import eventually
from tests.runs.test_crashes import Losses

pytestmark = pytest.mark.anyio
SHARDS = 3


def make_agent(done: Counter[str]) -> Agent:
    agent = Agent("clerk", slots=16, lease=1.0)

    @agent.capability("note")
    async def note(what: str) -> str:
        done[what] += 1
        return what

    @agent.workflow("kid")
    async def kid(run: Run, name: str) -> str:
        said: str = await run.call("note", what=f"{name}/kid")
        return said

    @agent.workflow("family")
    async def family(run: Run, name: str) -> list[Any]:
        both = await asyncio.gather(run.call("note", what=name), run.child("kid", name=name))
        named = await run.child("kid", id="named", name=f"{name}/named") if len(run.id) < 100 else None
        return [*both, named]

    return agent


def one_for_each_shard(mesh: Mesh) -> list[str]:
    ids = (f"family-{n}" for n in range(1000))
    found: dict[int, str] = {}
    while len(found) < mesh.keys.shards:
        id = next(ids)
        found.setdefault(mesh.keys.shard_of(id), id)
    return [found[shard] for shard in range(mesh.keys.shards)]


async def homes(mesh: Mesh) -> dict[str, set[str]]:
    """Every record of a run or task -> the shards in which it is."""
    found: dict[str, set[str]] = {}
    cursor = "0"
    while True:
        cursor, keys = await mesh.store.command("SCAN", cursor, "MATCH", f"{{{mesh.namespace}*", "COUNT", 1000)
        for key in keys:
            match = re.match(r"\{([^}]*)\}:((?:run|task):.*?)(?::journal|:large)?\Z", key)
            if match:
                found.setdefault(match[2], set()).add(match[1])
        if str(cursor) == "0":
            return found


@pytest.mark.parametrize("what", ["request", "reply"])
async def test_a_run_its_children_and_tasks_live_together_whatever_commit_is_lost(
    url: str, namespace: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """c10: the n-th commit of all is lost, for each n until there are fewer: neither twice nor none, in any shard."""
    for number in range(1, 40):
        done: Counter[str] = Counter()
        async with Mesh.connect(url, namespace=f"{namespace}-{number}", shards=SHARDS) as mesh:
            ids = one_for_each_shard(mesh)
            losses = Losses(mesh, "run_commit", number, what)
            with monkeypatch.context() as patch:
                patch.setattr(Link, "call", losses.losing)
                agent = make_agent(done)
                serving = asyncio.create_task(agent.serve(mesh))
                try:
                    runs = [await mesh.start("family", id=id, name=id) for id in ids]
                    for run in runs:
                        assert await run.result(30) == [run.id, f"{run.id}/kid", f"{run.id}/named/kid"]
                finally:
                    agent.stop()
                    await serving
            assert done == dict.fromkeys((f"{id}{end}" for id in ids for end in ("", "/kid", "/named/kid")), 1)
            places = await homes(mesh)
            assert len(places) == SHARDS * 6
            for record, shards in places.items():
                shard = mesh.keys.shard_of(record.partition(":")[2].partition(":")[0])
                assert shards == {mesh.keys.prefix(shard)[1:-2]}, record
            for id in ids:
                family = [record["run"] for record in await mesh.run(id).history() if record["what"] == "child"]
                assert len(family) == 2
                for one in (id, *family):
                    journal = await mesh.run(one).history()
                    assert [record["what"] for record in journal].count("end") == 1
                    told = [record["of"] for record in journal if record["what"] == "done"]
                    assert len(told) == len(set(told)) == (3 if one == id else 1)
                    assert (await mesh.run(one).head()).open == {}
        if not losses.lost:
            assert number > 6, "fewer commits than runs and shards must have"
            return


def _long(n: int, root: int, length: int) -> str:
    first = f"{n}-".ljust(root, "x")
    return f"{first}:".ljust(length, "y") if length > root else first


@pytest.mark.parametrize(("root", "length"), [(80, 80), (80, 128), (20, 128)])
async def test_what_belongs_to_a_run_with_a_long_id_lives_with_it(
    url: str, namespace: str, root: int, length: int
) -> None:
    """There is not room for all of it in the ids of its tasks and children: several, so that chance does not hide one."""
    done: Counter[str] = Counter()
    async with Mesh.connect(url, namespace=namespace, shards=SHARDS) as mesh:
        agent = make_agent(done)
        serving = asyncio.create_task(agent.serve(mesh))
        try:
            runs = [await mesh.start("family", id=_long(n, root, length), name=str(n)) for n in range(5)]
            for n, run in enumerate(runs):
                assert (await run.result(10))[:2] == [str(n), f"{n}/kid"]
        finally:
            agent.stop()
            await serving

        async def idle() -> bool:
            return all(not head.open for head in [await run.head() for run in runs])

        await eventually(idle, timeout=10)
        for record, shards in (await homes(mesh)).items():
            assert shards == {mesh.keys.prefix(mesh.keys.shard_of(record.partition(":")[2]))[1:-2]}, record
