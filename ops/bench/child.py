"""One process of a case: ``python -m ops.bench.child ROLE URL OPTIONS``; started by `ops.bench.process`, not by hand.

It says ``"ready"`` when it has connected, begins at the line ``go``, and says its figures as lines of JSON. The roles
that work for a floor use redis-py alone, on the same event loop as streammesh (uvloop where it is installed).
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

__all__: list[str] = []


def say(what: Any) -> None:
    """A line for the process that started this one."""
    print(json.dumps(what), flush=True)


async def heard() -> str:
    """The next line from the process that started this one."""
    return (await asyncio.to_thread(sys.stdin.readline)).strip()


async def main(role: str, url: str, options: dict[str, Any]) -> None:
    # Imported by need: an agent's process should weigh what an agent's process weighs.
    roles: dict[str, Callable[..., Awaitable[None]]]
    if role in ("bare", "bare-task", "bare-replier", "bare-enqueue", "bare-call", "bare-steady"):
        from ops.bench import floors

        roles = floors.ROLES
    elif role == "agent":
        from ops.bench import agents

        roles = agents.ROLES
    elif role in ("flows-agent", "flows"):
        from ops.bench import flows

        roles = flows.ROLES
    elif role == "dbos":
        from ops.bench import beside

        roles = beside.ROLES
    elif role in ("voter", "ask"):
        from ops.bench import polls

        roles = polls.ROLES
    else:
        from ops.bench import clients

        roles = clients.ROLES
    await roles[role](url, say, heard, **options)


def run() -> None:
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))


if __name__ == "__main__":
    run()
