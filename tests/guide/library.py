"""What the chapters on runs share: an agent that can do things, and ways to look at a run."""

from __future__ import annotations

from streammesh import Agent, RunHandle
from tests.eventually import eventually

__all__ = ["library", "reaches", "whats"]


def library() -> Agent:
    """An agent that can do things; the tests give it workflows."""
    agent = Agent("librarian", lease=1.0, grace=2.0)

    @agent.capability("double")
    async def double(n: int) -> int:
        return 2 * n

    @agent.capability("refuse")
    async def refuse() -> None:
        raise ValueError("not today")

    return agent


async def whats(run: RunHandle) -> list[str]:
    """What its journal says, in one word for each record."""
    return [record["what"] for record in await run.history()]


async def reaches(run: RunHandle, state: str) -> None:
    """Wait until the run is in that state."""

    async def there() -> bool:
        return (await run.head()).state == state

    await eventually(there, what=f"{run.id} is {state}")
