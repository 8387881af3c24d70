"""The workflows of the chaos with runs, and the agent that executes them: `python -m tests.chaos.tales --url … --folder …`.

A tale is a list of words, one for each step; what each step has to return is known beforehand, up to a token that says
which execution of it was the one. Everything that runs writes a line into the ledger before and after.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streammesh import Agent, Run, TaskContext
from streammesh.activate import _Activation
from streammesh.errors import StepFailed, StepInDoubt
from streammesh.workflow import Workflow

__all__ = ["WORKFLOWS", "Deed", "Notebook", "deeds", "make_tale"]

#: Shares of the words of which tales are made.
WORDS = {
    "call": 30, "step": 25, "thread": 5, "once": 5, "sleep": 8, "signal": 8, "child": 5, "both": 5, "hasty": 5, "patient": 2, "failing": 2,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Deed:
    """One line of the ledger: something at ``path`` of the run (or task) ``id`` begins, or with a token ends."""

    id: str
    path: str
    attempt: int
    process: str
    mono: float
    token: str


class Notebook:
    """A ledger in one file for all processes: one write with O_APPEND a line, so lines never mix and survive SIGKILL."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "deeds", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, id: str, path: str, attempt: int, process: str, token: str = "") -> None:
        os.write(self._file, (json.dumps([id, path, attempt, process, time.monotonic(), token]) + "\n").encode())


def deeds(folder: Path) -> list[Deed]:
    """All that was done, in the order in which it was written."""
    return [Deed(*json.loads(line)) for line in (folder / "deeds").read_text().splitlines()]


def make_tale(dice: random.Random, length: int) -> list[str]:
    """The words of one run."""
    return dice.choices(list(WORDS), list(WORDS.values()), k=length)


def _token() -> str:
    return f"{os.getpid()}:{time.monotonic_ns()}"


async def jot(n: int) -> dict[str, Any]:
    """A local step."""
    await asyncio.sleep(random.uniform(0, 0.03))
    return {"n": n, "token": _token()}


def jot_in_thread(n: int) -> dict[str, Any]:
    """A local step in a thread."""
    time.sleep(random.uniform(0, 0.03))
    return {"n": n, "token": _token()}


async def jot_once(n: int) -> dict[str, Any]:
    """A local step that may run once at most."""
    return await jot(n)


async def _hasty(run: Run, n: int) -> Any:
    try:
        async with asyncio.timeout(0.15):
            return await run.call("double", n=n, ms=random_ms(run))
    except TimeoutError:
        return "late"


def random_ms(run: Run) -> int:
    return run.random().randint(50, 400)


async def _once(run: Run, n: int) -> Any:
    try:
        return await run.step(jot_once, n, at_most_once=True)
    except StepInDoubt:
        return "doubt"


async def _failing(run: Run, n: int) -> Any:
    try:
        return await run.call("refuse", n=n)
    except StepFailed:
        return "refused"


async def _patient(run: Run, n: int) -> Any:
    try:
        return await run.signal("never", timeout=0.2)
    except TimeoutError:
        return "nobody"


async def _sleep(run: Run, n: int) -> Any:
    await asyncio.sleep(run.random().uniform(0.02, 0.6))
    return n


async def _child(run: Run, n: int) -> Any:
    return await run.child("small", n=n)


STEPS: dict[str, Callable[[Run, int], Awaitable[Any]]] = {
    "call": lambda run, n: run.call("double", n=n, ms=10),
    "step": lambda run, n: run.step(jot, n),
    "thread": lambda run, n: run.step(jot_in_thread, n),
    "once": _once,
    "sleep": _sleep,
    "signal": lambda run, n: run.signal("go"),
    "child": _child,
    "both": lambda run, n: asyncio.gather(run.call("double", n=n, ms=20), run.step(jot, n), _sleep(run, n)),
    "hasty": _hasty,
    "patient": _patient,
    "failing": _failing,
}


async def tale(run: Run, words: list[str], first: int = 0, again: int = 0) -> list[Any]:
    """Do what the words say, one after the other; ``again`` is the word before which it continues as new."""
    done: list[Any] = []
    try:
        for n, word in enumerate(words[first:], first):
            if again and n == again:
                run.continue_as_new(words=words, first=n)
            done.append(await STEPS[word](run, n))
            run.set_status(at=n)
    except asyncio.CancelledError:
        # What is tidied up after a cancellation is journaled like everything else.
        await run.step(jot, -1)
        raise
    return done


async def small(run: Run, n: int) -> Any:
    """A child: a step here and one elsewhere."""
    return [await run.step(jot, n), await run.call("double", n=n, ms=5)]


WORKFLOWS = {name: Workflow.make(name, 1, function) for name, function in (("tale", tale), ("small", small))}


def make_agent(name: str, *, slots: int, lease: float, grace: float, notebook: Notebook) -> Agent:
    agent = Agent(name, slots=slots, lease=lease, grace=grace)
    process = f"{name}-{os.getpid()}"
    for workflow in WORKFLOWS.values():
        agent.workflow(workflow.name)(workflow.function)

    @agent.capability("double")
    async def double(ctx: TaskContext, n: int, ms: int) -> dict[str, Any]:
        notebook.note(ctx.id, "", ctx.attempt, process)
        await asyncio.sleep(ms / 1000)
        token = _token()
        notebook.note(ctx.id, "", ctx.attempt, process, token)
        return {"n": 2 * n, "token": token}

    @agent.capability("refuse")
    async def refuse(ctx: TaskContext, n: int) -> None:
        notebook.note(ctx.id, "", ctx.attempt, process)
        raise RuntimeError("it always fails")

    call = _Activation._call

    async def noting(self: _Activation, start: Any) -> Any:
        notebook.note(self._id, start.path, self._held.attempt, process)
        result = await call(self, start)
        notebook.note(self._id, start.path, self._held.attempt, process, result["token"])
        return result

    _Activation._call = noting  # type: ignore[method-assign]
    return agent


def main() -> int:
    parser = argparse.ArgumentParser(description="an agent for the chaos with runs")
    for name, kind in (
        ("url", str),
        ("namespace", str),
        ("name", str),
        ("folder", Path),
        ("lease", float),
        ("slots", int),
        ("grace", float),
    ):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--mutant", default="")
    given = parser.parse_args()
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s.%(msecs)03d %(levelname)s %(message)s", datefmt="%H:%M:%S"
    )  # fmt: skip
    agent = make_agent(
        given.name, slots=given.slots, lease=given.lease, grace=given.grace, notebook=Notebook(given.folder)
    )
    return agent.run(given.url, namespace=given.namespace)


if __name__ == "__main__":
    sys.exit(main())
