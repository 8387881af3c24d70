"""The agent program that the chaos run kills, freezes and cuts off: the public Agent with handlers of every kind.

What each payload asks for is in the payload, so that a run is the same for the same seed: ``ms`` of work, ``fails`` and
``again`` before it succeeds, ``reject``, ``child`` to enqueue. Every attempt writes its begin into this process's history
and its end, its effect into the ledger that all share; both are O_APPEND, and outlive SIGKILL.

    python -m tests.chaos.victim --url … --name a0 --folder … [--mutant unfenced]
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tenacity

from streammesh import Agent, Reject, Retry, TaskContext
from streammesh.errors import ServerFull
from tests.chaos import watch
from tests.chaos.history import Recorder
from tests.chaos.watch import Ledger

#: Every capability that the victims offer; `flaky` and `doomed` have a budget of RETRIES more attempts.
CAPABILITIES = ("quick", "thread", "flaky", "doomed", "slow", "chain")
RETRIES = {"flaky": 6, "doomed": 1}
#: Seconds that `quick` asks for with Retry.
AGAIN = 0.15


def policy(capability: str) -> tenacity.Retrying:
    """Short waits, so that a run is short."""
    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(RETRIES[capability] + 1), wait=tenacity.wait_random(min=0.05, max=0.4)
    )


def make_agent(name: str, *, slots: int, lease: float, grace: float, recorder: Recorder, ledger: Ledger) -> Agent:
    agent = Agent(name, slots=slots, lease=lease, grace=grace)

    @contextmanager
    def attempt(ctx: TaskContext) -> Iterator[Callable[[], dict[str, Any]]]:
        """One execution, from its begin to its end; yields what has the effect and returns the result."""
        assert agent.serving
        me, token = agent.serving.id, f"{os.getpid()}:{time.monotonic_ns()}"
        ledger.note(ctx.id, ctx.attempt, me)
        # The server runs on this machine, so its clock is ours.
        now = time.time_ns() // 1_000_000
        recorder.start(ctx.id, ctx.attempt, me, redis=now, failures=ctx.failures, capability=ctx.capability)

        def effect() -> dict[str, Any]:
            ledger.note(ctx.id, ctx.attempt, me, token)
            return {"token": token, "attempt": ctx.attempt}

        try:
            yield effect
        finally:
            recorder.end(ctx.id, ctx.attempt, me)

    @agent.capability("quick")
    async def quick(ctx: TaskContext, n: int, ms: int, again: int = 0, reject: bool = False) -> dict[str, Any]:
        with attempt(ctx) as effect:
            await asyncio.sleep(ms / 1000)
            if reject:
                raise Reject(f"payload {n} asks for it")
            if ctx.attempt <= again:
                raise Retry(after=AGAIN)
            return effect()

    @agent.capability("thread")
    def thread(ctx: TaskContext, n: int, ms: int) -> dict[str, Any]:
        with attempt(ctx) as effect:
            time.sleep(ms / 1000)
            return effect()

    @agent.capability("flaky", retry=policy("flaky"))
    async def flaky(ctx: TaskContext, n: int, ms: int, fails: int) -> dict[str, Any]:
        with attempt(ctx) as effect:
            await asyncio.sleep(ms / 1000)
            if ctx.failures < fails:
                raise RuntimeError(f"failure {ctx.failures + 1} of {fails}")
            return effect()

    @agent.capability("doomed", retry=policy("doomed"))
    async def doomed(ctx: TaskContext, n: int, ms: int) -> dict[str, Any]:
        with attempt(ctx):
            await asyncio.sleep(ms / 1000)
            raise RuntimeError("it always fails")

    @agent.capability("slow")
    async def slow(ctx: TaskContext, n: int, ms: int) -> dict[str, Any]:
        with attempt(ctx) as effect:
            for part in range(4):
                await asyncio.sleep(ms / 4000)
                ctx.progress(part + 1, 4)
            return effect()

    @agent.capability("chain")
    async def chain(ctx: TaskContext, n: int, ms: int) -> dict[str, Any]:
        with attempt(ctx) as effect:
            await asyncio.sleep(ms / 1000)
            # The same id in every attempt: however often this runs, there is one child.
            child = f"{ctx.id}.child"
            with recorder.call("enqueue", child, capability="quick", parent=ctx.id) as call:
                try:
                    task = await ctx.mesh.enqueue("quick", {"n": n, "ms": 5}, id=child)
                except ServerFull as full:
                    raise Retry(after=AGAIN) from full
                call.ok(created=task.created)
            return effect()

    return agent


def main() -> int:
    parser = argparse.ArgumentParser(description="an agent for the chaos run")
    parser.add_argument("--url", required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--lease", type=float, required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--grace", type=float, required=True)
    parser.add_argument("--mutant", choices=["", *watch.MUTANTS], default="")
    given = parser.parse_args()
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s.%(msecs)03d %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
    )
    recorder = Recorder(given.folder, f"{given.name}-{os.getpid()}")
    ledger = Ledger(given.folder)
    watch.listen_in(recorder)
    if given.mutant:
        watch.mutate(given.mutant)
    agent = make_agent(
        given.name, slots=given.slots, lease=given.lease, grace=given.grace, recorder=recorder, ledger=ledger
    )
    return agent.run(given.url, namespace=given.namespace)


if __name__ == "__main__":
    sys.exit(main())
