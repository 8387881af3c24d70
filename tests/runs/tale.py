"""One small workflow with everything in it, and an agent that executes it; as a process, it kills itself at a commit.

python -m tests.runs.tale URL NAMESPACE before|after|never COMMIT
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import redis

from streammesh import Agent, Mesh, Run
from streammesh.store import Link, Store

LEASE = 1.0
RESULT = [2, "done", "told", {"kid": 4}]


def make_agent(url: str, namespace: str) -> Agent:
    agent = Agent("teller", slots=4, lease=LEASE, grace=1.0)
    deeds = redis.Redis.from_url(url, decode_responses=True)

    def deed(name: str) -> str:
        deeds.rpush(f"deeds:{namespace}", name)
        return name

    @agent.capability("double")
    async def double(n: int) -> int:
        return 2 * n

    @agent.workflow("kid")
    async def kid(run: Run, n: int) -> Mapping[str, int]:
        return {"kid": await run.call("double", n=n)}

    @agent.workflow("tale")
    async def tale(run: Run) -> Sequence[Any]:
        doubled = await run.call("double", n=1)
        done = await run.step(deed, "done")
        await run.sleep(0.02)
        said = await run.signal("word")
        child = await run.child("kid", n=2)
        return [doubled, done, said, child]

    @agent.workflow("wide")
    async def wide(run: Run) -> Sequence[Any]:
        """For forks: something is open all the time."""
        waiting = asyncio.create_task(run.call("nobody"))
        return [await run.call("double", n=1), await run.call("double", n=2), await waiting]

    return agent


def die_at(when: str, commit: int) -> None:
    """SIGKILL to this process around one run_commit."""
    run = Store.run
    seen = 0

    async def counted(
        self: Store, name: str, keys: Sequence[Any], args: Sequence[Any], link: Link | None = None
    ) -> Any:
        nonlocal seen
        if name != "run_commit" or link is None:
            return await run(self, name, keys, args, link)
        seen += 1
        mine = seen == commit
        if mine and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        reply = await run(self, name, keys, args, link)
        if mine and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return reply

    Store.run = counted  # type: ignore[method-assign]


async def main(url: str, namespace: str, when: str, commit: str) -> None:
    if when != "never":
        die_at(when, int(commit))
    async with Mesh.connect(url, namespace=namespace) as mesh:
        await make_agent(url, namespace).serve(mesh)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
