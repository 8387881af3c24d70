"""Members of a group that are killed in the middle of a message: another takes over, and nothing is lost."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from streammesh import Mesh
from tests.eventually import eventually

MEMBER = """
import asyncio, sys
from streammesh import Mesh

async def main():
    async with Mesh.connect({url!r}, namespace={namespace!r}) as mesh:
        async with mesh.subscribe("news", "desk", "head", lease={lease}, prefetch={prefetch}) as messages:
            print("begun", flush=True)
            async for message in messages:
                if {ponders}:
                    print(message.id, flush=True)
                    await asyncio.Event().wait()
                await mesh.store.command("RPUSH", {handled!r}, message.id)

asyncio.run(main())
"""

Member = Callable[..., Awaitable[Process]]


@pytest.fixture
async def mesh(url: str, namespace: str) -> AsyncIterator[Mesh]:
    async with Mesh.connect(url, namespace=namespace) as mesh:
        yield mesh


@pytest.fixture
async def member(mesh: Mesh) -> AsyncIterator[Member]:
    """``await member()``: a process that is a member of the group `desk`; those that still live are killed at the end."""
    begun: list[Process] = []

    async def begin(*, ponders: bool = False, lease: float = 1.0, prefetch: int = 1) -> Process:
        text = MEMBER.format(
            url=mesh.url, namespace=mesh.namespace, lease=lease, prefetch=prefetch, ponders=ponders,
            handled=f"{mesh.namespace}-handled",
        )  # fmt: skip
        one = await asyncio.create_subprocess_exec(sys.executable, "-c", text, stdout=asyncio.subprocess.PIPE)
        begun.append(one)
        assert one.stdout
        assert await asyncio.wait_for(one.stdout.readline(), 20) == b"begun\n"
        return one

    yield begin
    for one in begun:
        if one.returncode is None:
            one.kill()
        await one.wait()
    await mesh.store.command("DEL", f"{mesh.namespace}-handled")


async def handled(mesh: Mesh) -> list[str]:
    return list(await mesh.store.command("LRANGE", f"{mesh.namespace}-handled", 0, -1))


async def test_a_member_killed_in_the_middle_of_a_message_is_replaced(mesh: Mesh, member: Member) -> None:
    victim = await member(ponders=True)
    sent = [await mesh.publish("news", n) for n in range(20)]
    assert victim.stdout
    begun = (await asyncio.wait_for(victim.stdout.readline(), 10)).decode().strip()
    await member()

    async def all_others() -> bool:
        return set(await handled(mesh)) == set(sent) - {begun}

    await eventually(all_others, timeout=10)
    victim.send_signal(signal.SIGKILL)
    await victim.wait()

    async def everything() -> bool:
        return set(await handled(mesh)) == set(sent)

    await eventually(everything, timeout=10)
    assert Counter(await handled(mesh)) == Counter(sent), "only what the victim had begun was given out again"
    group = await mesh.store.command("XPENDING", mesh.keys.topic("news"), "desk")
    assert int(group[0]) <= 1
