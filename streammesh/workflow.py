"""What a workflow may do: the `Run` that its first parameter is.

    @agent.workflow("digest")
    async def digest(run: Run, folder: str) -> dict:
        paths = await run.call("list-documents", folder=folder)
        parts = await asyncio.gather(*(run.call("summarize", path=path) for path in paths))
        return {"parts": parts}

Plain asyncio is durable here: gather, wait, timeout, TaskGroup, sleep, Event, Queue, Lock and cancellation do the same
thing again after a crash. Everything that touches the world outside is a step: `call` and `map` run on any agent, `step`
runs here.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn, Unpack

from streammesh import codec
from streammesh.bids import LONGEST_ID, terms_of
from streammesh.commands import Again, Effect
from streammesh.errors import ConfigError, InvalidPayload
from streammesh.execution import Execution
from streammesh.keys import LANES, Keys, check_id, check_name
from streammesh.motions import Collected, Decision, Gathering, Motion, Poll, Voters, collected
from streammesh.saga import Saga
from streammesh.writes import checked

__all__ = ["Run", "Workflow", "child_id"]

#: Payloads up to so many bytes are written into the journal as well, for people who read it.
SHOWN = 256
#: The most characters of a task's or child's id.
LONGEST_TASK = 128


@dataclass(frozen=True, slots=True)
class Workflow:
    """A coroutine function ``function(run, **input)`` under a name and a version."""

    name: str
    version: int
    function: Callable[..., Awaitable[Any]]

    @staticmethod
    def make(name: str, version: int, function: Callable[..., Any]) -> Workflow:
        """Check a workflow when it is declared. Raises ConfigError."""
        check_name(name, "workflow")
        if not inspect.iscoroutinefunction(function):
            raise ConfigError(f"workflow {name!r}: expected an async def whose first parameter is the Run")
        if not inspect.signature(function).parameters:
            raise ConfigError(
                f"workflow {name!r}: its first parameter must be the Run, as in async def {function.__name__}(run, …)"
            )
        if version < 1:
            raise ConfigError(f"workflow {name!r}: version={version} is not usable; expected a whole number from 1")
        return Workflow(name, version, function)

    @property
    def stream(self) -> str:
        """Its word in ``{mesh}:runs:<workflow>``."""
        return self.name if self.version == 1 else f"{self.name}@{self.version}"


#: Who may bid for a capability now, among those that are named.
Eligible = Callable[[str, list[str] | None], Awaitable[list[str]]]


class Run:
    """One run, as its workflow sees it. ``id`` is the run's id; ``attempt`` is not shown, because no result may depend on it."""

    def __init__(
        self,
        execution: Execution,
        keys: Keys,
        eligible: Eligible | None = None,
        electorate: Callable[..., Awaitable[Mapping[str, int]]] | None = None,
    ) -> None:
        self._execution = execution
        self._keys = keys
        self._eligible = eligible
        self._electorate = electorate
        self.id = execution.id

    # -- steps on any agent

    async def call(
        self,
        capability: str,
        payload: Mapping[str, Any] | None = None,
        /,
        *,
        deadline: float | None = None,
        priority: str = "normal",
        to: str | None = None,
        headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> Any:
        """Run a task of a capability, on whichever agent takes it, and return its result; journaled.

        Retries and timeouts are those of the capability. Raises StepFailed when the task could not be done, TaskCancelled,
        TaskExpired. Cancelling the wait cancels the task.
        """
        if payload is not None and fields:
            raise InvalidPayload("a payload and fields are both given; give one")
        check_name(capability, "capability")
        execution = self._execution
        path = execution.path(capability)
        body = codec.encode(dict(payload) if payload is not None else fields)
        task = self._child_id(path)
        extra: list[Any] = []
        if deadline is not None:
            extra += ("deadline", f"+{int(deadline * 1000)}")
        if priority != "normal":
            if priority not in LANES:
                raise InvalidPayload(f"priority {priority!r} is not known; expected one of {', '.join(LANES)}")
            extra += ("priority", priority)
        if to:
            extra += ("to", to)
        extra += ("correlation", self.id)
        for name, value in (headers or {}).items():
            extra += (f"header.{check_id(name, 'header name')}", value)
        shard = self._keys.shard_of(self.id)
        stream = self._keys.inbox(to, shard) if to else self._keys.tasks(capability, priority, shard)
        journal: dict[str, Any] = {"payload": codec.decode(body)} if len(body) <= SHOWN else {"bytes": len(body)}
        execution.command(
            "call", capability, journal, Effect("task", path, (stream, capability, task, body, "", *extra)), path
        )
        return await execution.outcome(path, (f"task {task}",))

    async def map(self, capability: str, items: Iterable[Mapping[str, Any]], *, limit: int = 0) -> list[Any]:
        """Run a task for each payload and return their results in order; ``limit`` bounds how many are open at once (0: all).

        The first failure cancels what is still open and is raised.
        """
        gate = asyncio.Semaphore(limit) if limit else None

        async def one(item: Mapping[str, Any]) -> Any:
            if gate is None:
                return await self.call(capability, item)
            async with gate:
                return await self.call(capability, item)

        tasks = [asyncio.ensure_future(one(item)) for item in items]
        try:
            return list(await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:
                task.cancel()
            raise

    async def auction(
        self,
        capability: str,
        payload: Mapping[str, Any] | None = None,
        /,
        *,
        bidders: Iterable[str] | None = None,
        window: float = 2.0,
        confirm: float = 1.0,
        score: Mapping[str, float] | None = None,
        min_score: float | None = None,
        fallback: str = "queue",
        deadline: float | None = None,
        **fields: Any,
    ) -> Any:
        """Give a task to the agent that bids best and return its result; journaled: first who was asked, then the outcome.

        Options as for `Mesh.auction`, without functions that score. Raises NoBids, StepFailed, TaskCancelled, TaskExpired.
        Cancelling the wait cancels the auction.
        """
        if payload is not None and fields:
            raise InvalidPayload("a payload and fields are both given; give one")
        if callable(score):
            raise ConfigError(
                "score= is a function: in a workflow give weights, such as {'eta': 1}; any agent must be able to decide"
            )
        body = dict(payload) if payload is not None else fields
        terms = terms_of(
            capability, body, window=window, confirm=confirm, score=score, min_score=min_score, fallback=fallback, deadline=deadline
        )  # fmt: skip
        execution = self._execution
        asked = execution.path(f"{capability}.bidders")
        who = list(bidders) if bidders is not None else None
        execution.local(asked, "bidders", self._asked, (capability, who), {}, False, 3)
        found = await execution.outcome(asked)
        path = execution.path(capability)
        # Shorter than a task's: that of the work is made of it.
        id = self._child_id(path, LONGEST_ID)
        flat = [item for pair in terms.items() for item in pair]
        execution.command(
            "auction", capability, {"bidders": found}, Effect("auction", path, (id, len(terms), *flat, *found)), path
        )
        return await execution.outcome(path, (f"auction {id}",))

    async def agents(self, capability: str) -> list[str]:
        """The ids of the live agents that offer a capability, sorted; journaled: in a replay they are who they were."""
        path = self._execution.path(f"{check_name(capability, 'capability')}.agents")
        self._execution.local(path, "agents", self._asked, (capability, None), {}, False, 3)
        return list(await self._execution.outcome(path))

    async def _asked(self, capability: str, bidders: list[str] | None) -> list[str]:
        if self._eligible is None:
            raise ConfigError("this run is not executed by an agent: nobody can be asked for bids")
        return await self._eligible(capability, bidders)

    # -- steps here

    async def step(
        self, function: Callable[..., Any], *args: Any, at_most_once: bool = False, retries: int = 0, **kwargs: Any
    ) -> Any:
        """Run ``function(*args, **kwargs)`` in this process, outside the workflow's loop, and journal its result (any JSON).

        An ``async def`` runs on the agent's loop, a ``def`` in a thread. Recorded once it is done: after a crash in the
        middle it runs again, or raises StepInDoubt with ``at_most_once``. Raises StepFailed when the function raises.
        """
        name = getattr(function, "__name__", "step")
        execution = self._execution
        path = execution.path(name)
        execution.local(path, name, function, args, kwargs, at_most_once, retries)
        return await execution.outcome(path)

    # -- time, chance, waiting

    async def sleep(self, seconds: float) -> None:
        """Sleep, for a second or a year; nothing is held in memory meanwhile."""
        await asyncio.sleep(seconds)

    async def sleep_until(self, when: datetime) -> None:
        """Sleep until a point in time (with a time zone)."""
        if when.tzinfo is None:
            raise InvalidPayload(f"{when.isoformat()} has no time zone; use datetime.now(UTC) or .astimezone()")
        await asyncio.sleep(max(0.0, when.timestamp() - self._execution.loop.now))

    def now(self) -> datetime:
        """The time of the last thing that happened to the run: the same in every replay."""
        return datetime.fromtimestamp(self._execution.loop.now, UTC)

    def random(self) -> random.Random:
        """A generator of its own for this place in the code, seeded by the run: the same in every replay."""
        return random.Random(self._chance("random"))

    def uuid(self) -> uuid.UUID:
        """An id that is the same in every replay."""
        return uuid.uuid5(uuid.NAMESPACE_URL, f"streammesh:{self._chance('uuid')}")

    async def signal(self, name: str, timeout: float | None = None) -> Any:
        """The next signal of that name: its payload. Signals wait for their reader, in order; TimeoutError after ``timeout`` s."""
        if timeout is None:
            return await self._execution.signal(name)
        async with asyncio.timeout(timeout):
            return await self._execution.signal(name)

    # -- many agents at once

    async def vote(
        self, question: str, options: Sequence[str], *, voters: Voters = None, **rules: Unpack[Poll]
    ) -> Decision:
        """Put something to the vote and wait for the decision, as `Mesh.vote`; journaled, and taken back when the run is cancelled.

        Who votes is a step of its own (StepFailed when there is nobody); the vote itself survives this agent and every other.
        """
        motion = Motion.make(question, options, **rules)
        path = self._execution.path("vote")
        electorate = await self._poll(voters, topic=motion.topic)
        fields = motion.fields(self._child_id(path), electorate, weighted=isinstance(voters, Mapping))
        return Decision.of(await self._put("vote", motion.topic, path, fields), motion.options)

    async def collect(
        self, type: str, payload: Any = None, *, to: Voters = None, expected: int | None = None, at_least: int = 1,
        timeout: float = 30.0, stall: float | None = None,
    ) -> Collected:  # fmt: skip
        """Ask many agents and gather their answers, as `Mesh.collect`; journaled. Raises TooFewAnswers, StepFailed (nobody to ask)."""
        gathering = Gathering.make(type, payload, expected=expected, at_least=at_least, timeout=timeout, stall=stall)
        path = self._execution.path("collect")
        fields = gathering.fields(await self._poll(to, type=gathering.type))
        return collected(await self._put("collect", gathering.type, path, fields), at_least)

    async def _poll(self, voters: Voters, **about: str) -> Mapping[str, int]:
        async def electorate() -> Mapping[str, int]:
            # Not asked in a replay, which has the answer.
            if self._electorate is None:
                raise ConfigError("this run is not executed by an agent: there is nobody to ask")
            return await self._electorate(voters, **about)

        return dict(await self.step(electorate))

    async def _put(self, what: str, name: str, path: str, fields: Mapping[str, Any]) -> Any:
        id = self._child_id(path)
        line = {"source": f"run-{self.id}"[:128], "correlation": self.id, "causation": self.id}
        flat = [item for pair in {**fields, **line}.items() for item in pair]
        self._execution.command(what, name, {}, Effect("vote", path, (id, *flat)), path)
        return await self._execution.outcome(path, (f"vote {id}",))

    # -- other runs

    async def child(
        self,
        workflow: str,
        /,
        *,
        id: str | None = None,
        version: int = 1,
        wait: bool = True,
        close: str = "cancel",
        **input: Any,
    ) -> Any:
        """Start a child run; wait for its result, or return its id with ``wait=False``.

        ``close`` says what happens to it when this run ends first: cancel, terminate or abandon. Raises StepFailed.
        """
        if close not in ("cancel", "terminate", "abandon"):
            raise InvalidPayload(f"close={close!r} is not known; expected cancel, terminate or abandon")
        check_name(workflow, "workflow")
        execution = self._execution
        path = execution.path(workflow)
        child = check_id(f"{self.id}:{check_id(id)}", "id of the child") if id else self._child_id(path)
        body = codec.encode(input)
        execution.command(
            "child", workflow, {"run": child}, Effect("child", path, (child, workflow, version, body, close)), path
        )
        if not wait:
            return execution.child(path, child)
        return await execution.outcome(path, (f"child {child} {close}",))

    def continue_as_new(self, **input: Any) -> NoReturn:
        """End this execution and go on with a new input and an empty journal, under the same id; unread signals come along."""
        raise Again(input)

    def key(self, name: str) -> str:
        """The key ``name`` of your own that lives with the run, for `redis`: of all runs of its shard (of all, where there is one)."""
        return self._keys.user(check_id(name, "name of a key"), self._keys.shard_of(self.id))

    async def redis(self, *writes: Sequence[Any]) -> list[Any]:
        """Apply writes such as ``("INCRBY", run.key("stock"), -1)`` in the script that commits them: exactly once.

        Returns their replies, journaled. Raises StepFailed when one is refused; those before it in the list are done.
        """
        execution, path = self._execution, self._execution.path("redis")
        effect = Effect(
            "redis", path, (execution.consumed, *checked(writes, self._keys.user("", self._keys.shard_of(self.id))))
        )
        if execution.command("step", "redis", {}, effect, path):
            # The commit writes the record itself, with what came of it.
            execution.records.pop()
        result: list[Any] = await execution.outcome(path)
        return result

    # -- the rest

    def patched(self, id: str) -> bool:
        """True where the code may take its new branch: in runs that had not yet come this far when it was changed.

        What tells is the journal: a run that has given no command yet and only waits for its first signal takes the new branch.
        """
        execution = self._execution
        path = f"patched.{check_id(id, 'patch id')}"
        return execution.mark(path, id)

    def set_status(self, **fields: Any) -> None:
        """Set fields that can be read from outside without waking the run."""
        self._execution.status.update(fields)
        self._execution.effect("status", "status", (codec.encode(self._execution.status, what="status"),))

    @asynccontextmanager
    async def saga(self) -> AsyncIterator[Saga]:
        """``async with run.saga() as saga``: if the block is left by an exception, what ``saga.undo`` remembers runs in reverse."""
        saga = Saga()
        try:
            yield saga
        except GeneratorExit:
            # The run is parked, not ended.
            raise
        except BaseException:
            # Undoing is shielded from a second cancellation: half an undo is worse than none.
            await asyncio.shield(asyncio.ensure_future(saga.back()))
            raise

    def _chance(self, name: str) -> str:
        return child_id(self._execution.seed, self._execution.path(name), self._execution.generation)

    def _child_id(self, path: str, longest: int = LONGEST_TASK) -> str:
        return child_id(self.id, path, self._execution.generation, longest)


def child_id(run: str, path: str, generation: int = 0, longest: int = LONGEST_TASK) -> str:
    """The id of the task or child that the command at ``path`` of the run makes."""
    # Paths come again in each generation of a run. Ids may not: the task of that id would be known, and never answer.
    id = f"{run}:g{generation}:{path}" if generation else f"{run}:{path}"
    if len(id) > longest:
        # The part before the first colon decides the shard, and stays whole (`check_run_id` leaves room for it).
        id = f"{run[: longest - 33]}:{uuid.uuid5(uuid.NAMESPACE_URL, id).hex}"
    return id
