"""200 agents on one machine: what they cost idle, how fast they see each other, how fast all hear. Each scenario states its bound."""

from __future__ import annotations

import asyncio
import sys
import time
from asyncio.subprocess import PIPE

import pytest

from streammesh import Mesh
from tests.eventually import eventually

AGENTS, PROCESSES = 200, 4


async def calls(mesh: Mesh) -> dict[str, int]:
    """How often each command was called so far, also from scripts."""
    said: str = await mesh.store.command("INFO", "commandstats")
    lines = [line.removeprefix("cmdstat_").split(":calls=") for line in said.splitlines() if ":calls=" in line]
    return {name: int(rest.partition(",")[0]) for name, rest in lines}


@pytest.mark.slow
async def test_two_hundred_agents(url: str, namespace: str) -> None:
    """All of them know all within 3 s of the last join; idle they send at most 5 commands a second each and never KEYS or SCAN; a
    broadcast is heard by all within 2 s; a look at the peers from memory takes at most 1 ms (p99)."""
    async with Mesh.connect(url, namespace=namespace) as mesh:
        each = AGENTS // PROCESSES
        argv = [mesh.url, namespace, "member", str(each), "10", "4", str(AGENTS)]
        processes = [
            await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.mesh.crowd", *argv, stdout=PIPE)
            for _ in range(PROCESSES)
        ]
        try:
            lines = []
            for process in processes:
                assert process.stdout
                lines.append(await asyncio.wait_for(process.stdout.readline(), 90))
            joined = [
                int(place.partition("-")[0])
                for place, flat in await mesh.store.command("XRANGE", mesh.keys.members, "-", "+")
                if flat[1] == "joined"
            ]
            storm = (max(int(line.split()[1]) for line in lines) - max(joined)) / 1000
            assert len(joined) == AGENTS, "nobody had to come back"

            def sent(stats: dict[str, int]) -> int:
                # Scripts call none of these but XREADGROUP, which makes the figure too large rather than too small.
                return sum(stats.get(name, 0) for name in ("evalsha", "eval", "xread", "xreadgroup", "xlen", "client"))

            before, began = await calls(mesh), time.monotonic()
            await eventually(lambda: time.monotonic() - began >= 10, timeout=15, what="ten idle seconds")
            after, took = await calls(mesh), time.monotonic() - began
            idle = (sent(after) - sent(before)) / took / AGENTS

            began = time.monotonic()
            await mesh.broadcast("news", "rain")

            async def all_heard() -> bool:
                return int(await mesh.store.command("HLEN", f"{namespace}-heard")) == AGENTS

            await eventually(all_heard, timeout=10)
            heard = time.monotonic() - began

            assert len(await mesh.peers(fresh=True)) == AGENTS
            looks = []
            for _ in range(1000):
                began = time.perf_counter()
                assert len(await mesh.peers("work")) == AGENTS
                looks.append(time.perf_counter() - began)
            look = sorted(looks)[989] * 1000
            sys.stdout.write(
                f"join {storm:.2f} s, idle {idle:.2f} commands/s each, broadcast {heard:.2f} s, look p99 {look:.3f} ms\n"
            )
            assert storm <= 3.0
            assert idle <= 5.0
            assert not {"keys", "scan"} & {name for name in after if after[name] != before.get(name, 0)}
            assert heard <= 2.0
            assert look <= 1.0
        finally:
            for process in processes:
                process.kill()
                await process.wait()
