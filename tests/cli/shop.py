"""An app for the tests of the command line: quick, slow, failing and refusing capabilities."""

import asyncio
import os

from streammesh import Agent, Ballot, Reject, TaskContext

agent = Agent("shop", slots=2, lease=2.0, grace=5.0)
other = Agent("other", lease=2.0)
silent = Agent("silent")
number = 7


@agent.capability("greet")
async def greet(name: str, times: int = 1) -> dict[str, str]:
    """Says hello."""
    return {"hello": name * times}


@agent.votes("taste")
async def taste(ballot: Ballot) -> str | None:
    return ballot.payload or None


@agent.capability("headers")
async def headers(ctx: TaskContext) -> dict[str, str]:
    return dict(ctx.headers)


@agent.capability("hold")
async def hold(seconds: float, ctx: TaskContext) -> str:
    """Runs until its time is over, and tells how far it is."""
    for step in range(int(seconds * 20)):
        ctx.progress(step)
        await asyncio.sleep(0.05)
    return "held"


@agent.capability("broken")
def broken(text: str = "") -> None:
    raise ValueError(f"cannot do this: {text}")


@agent.capability("flaky", retries=5)
def flaky() -> None:
    raise ConnectionError("not now")


@agent.capability("refuse")
def refuse() -> None:
    raise Reject("the shop is closed")


@agent.capability("crash")
def crash() -> None:
    os._exit(9)


@other.capability("other")
async def elsewhere() -> int:
    return os.getpid()
