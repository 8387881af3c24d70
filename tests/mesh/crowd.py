"""Several agents in one process, to be killed, frozen and counted: ``python -m tests.mesh.crowd URL NAMESPACE NAME COUNT LEASE SLOTS [EXPECTED]``.

`work` takes ``ms``, and notes each start; `news` is counted. Prints `knows <ms since 1970>` once every agent here knows
EXPECTED ready ones, by its own picture.
"""

from __future__ import annotations

import asyncio
import sys
import time

from streammesh import Agent, Mesh, Message, TaskContext
from tests.eventually import eventually


def member(name: str, mesh: Mesh, lease: float, slots: int) -> Agent:
    agent = Agent(name, lease=lease, slots=slots, grace=1.0)

    @agent.capability("work")
    async def work(ms: int, ctx: TaskContext) -> str:
        await mesh.store.command("HINCRBY", f"{mesh.namespace}-starts", ctx.id, 1)
        await asyncio.sleep(ms / 1000)
        return agent.serving.id if agent.serving else ""

    @agent.on("news")
    async def news(_: Message) -> None:
        assert agent.serving
        await mesh.store.command("HINCRBY", f"{mesh.namespace}-heard", agent.serving.id, 1)

    return agent


async def main(url: str, namespace: str, name: str, count: int, lease: float, slots: int, expected: int) -> None:
    meshes = [Mesh.connect(url, namespace=namespace, patience=None) for _ in range(count)]
    await asyncio.gather(*(mesh.open() for mesh in meshes))
    agents = [asyncio.create_task(member(name, mesh, lease, slots).serve(mesh)) for mesh in meshes]

    def known() -> bool:
        return all(sum(one.state == "ready" for one in mesh.roster.known()) >= expected for mesh in meshes)

    await eventually(known, timeout=90)
    sys.stdout.write(f"knows {time.time_ns() // 1_000_000}\n")
    sys.stdout.flush()
    await asyncio.gather(*agents)


if __name__ == "__main__":
    _, url, namespace, name, count, lease, slots, *expected = sys.argv
    asyncio.run(main(url, namespace, name, int(count), float(lease), int(slots), int(expected[0] if expected else 0)))
