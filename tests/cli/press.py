"""An app with workflows, for the tests of `run`."""

import asyncio
import os

from streammesh import Agent, Reject, Run

agent = Agent("press", slots=8, lease=1.0, grace=2.0)
later = Agent("later", lease=1.0)
changed = Agent("press", slots=8, lease=1.0)


@agent.capability("set-type")
async def set_type(word: str) -> str:
    if word == "smudge":
        raise Reject("cannot be read")
    return word.upper()


@agent.workflow("page")
async def page(run: Run, words: list[str]) -> str:
    """Sets every word, shows it to somebody, and prints when it is approved."""
    set_words = await asyncio.gather(*(run.call("set-type", word=word) for word in words))
    run.set_status(words=len(set_words))
    approval = await run.signal("approved")
    ink = await run.step(os.path.basename, "/shelf/ink")
    return f"{' '.join(set_words)} ({ink}, {approval})"


@agent.workflow("dry")
async def dry(run: Run, seconds: float = 3600) -> str:
    try:
        await run.sleep(seconds)
    finally:
        await run.call("set-type", word="dried")
    return "dry"


@agent.workflow("book")
async def book(run: Run, pages: list[str]) -> list[str]:
    return [await run.child("page", id=f"p{n}", words=[word]) for n, word in enumerate(pages)]


@agent.workflow("absent")
async def absent(run: Run) -> None:
    await run.call("nobody-offers-this", sheet=1)


@later.workflow("page", version=2)
async def page2(run: Run, words: list[str]) -> str:
    return "second edition"


@changed.workflow("dry")
async def dry_otherwise(run: Run, seconds: float = 3600) -> str:
    await run.call("set-type", word="first")
    await run.sleep(seconds)
    return "dry"
