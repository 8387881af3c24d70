"""The client: one connection to a mesh, with every room of it. A composition root: what needs a decision is in a room.

async with Mesh.connect("redis://localhost:6379") as mesh:
    task = await mesh.enqueue("summarize", text="…", id="doc-17")
    print(await task.result(timeout=30))
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Unpack

from streammesh import codec
from streammesh.auctions import Auction
from streammesh.bids import OPTIONS
from streammesh.choice import Chosen
from streammesh.errors import InvalidPayload, PayloadConflict, TaskError
from streammesh.journal import Head
from streammesh.keys import check_id
from streammesh.motions import Collected, Decision, Limits, Poll, Voters
from streammesh.peers import Membership, PeerInfo
from streammesh.record import new_id
from streammesh.registry import AgentInfo
from streammesh.rooms import Rooms
from streammesh.runlist import states_of
from streammesh.runs import RunHandle
from streammesh.schedules import Schedule
from streammesh.tasks import Task
from streammesh.topics import Subscription

__all__ = ["Mesh"]


class Mesh(Rooms):
    """A client of one mesh. Make it with `connect`, use it as ``async with``.

    Rooms, for those who want more than the verbs below: ``tasks timers dead registry roster messages status votes runlist schedules``.
    """

    # -- tasks

    async def enqueue(
        self,
        capability: str,
        payload: Mapping[str, Any] | None = None,
        /,
        *,
        id: str | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        deadline: float | datetime | None = None,
        priority: str = "normal",
        to: str | None = None,
        headers: Mapping[str, str] | None = None,
        strategy: str = "pull",
        affinity: str | None = None,
        **fields: Any,
    ) -> Task:
        """Enqueue one task; its payload is ``payload``, or the other keyword arguments.

        ``id`` is the idempotency key: the same id again is the same task (with another payload: PayloadConflict).
        ``delay`` (seconds) or ``at`` put it off, ``deadline`` (seconds from now, or a datetime) lets it expire,
        ``priority`` is high, normal or low, ``to`` the id or name of one agent, ``headers`` travel to the handler.
        Whoever has room pulls it from the queue, unless ``strategy`` or ``affinity`` chooses one agent, as in `request`; then
        NoCapableAgent is raised when nobody can be given it. A task for an id waits for that very agent; one for a name, or chosen by a
        strategy, goes on to another agent with room when its own has none (see `streammesh.overflow`).
        Called in a handler, the task inherits the correlation id. Atomic; safe to repeat with the same ``id``.
        """
        to = await self._addressee(to) if to else await self.asking.for_task(capability, strategy, affinity)
        return await self.tasks.enqueue(
            capability, codec.either(payload, fields), id=id, delay=delay, at=at, deadline=deadline, priority=priority, to=to, headers=headers
        )  # fmt: skip

    async def enqueue_many(
        self, capability: str, payloads: Iterable[Mapping[str, Any]], /, *, to: str | None = None, **options: Any
    ) -> list[Task | PayloadConflict]:
        """Enqueue many tasks, 1,000 in a round trip; a Task or a PayloadConflict for each, in order.

        Options as for `enqueue`, and ``ids``: an id for each payload.
        """
        to = await self._addressee(to) if to else None
        return await self.tasks.enqueue_many(capability, payloads, to=to, **options)

    async def _addressee(self, to: str) -> str:
        id = (await self.registry.resolve(to)).id
        return id if id == to else Chosen(id)

    async def call(
        self, capability: str, payload: Mapping[str, Any] | None = None, /, *, timeout: float | None = None,
        **options: Any,
    ) -> Any:  # fmt: skip
        """Enqueue a task and wait for its result. Options and errors as for `enqueue` and `Task.result`."""
        names = ("id", "delay", "at", "deadline", "priority", "to", "headers")
        known = {name: options.pop(name) for name in names if name in options}
        chosen = options.pop("strategy", "pull"), options.pop("affinity", None)
        if known.get("to"):
            known["to"] = await self._addressee(known["to"])
        else:
            known["to"] = await self.asking.for_task(capability, *chosen)
        return await self.tasks.call(capability, codec.either(payload, options), timeout, **known)

    async def map(
        self, capability: str, payloads: Iterable[Mapping[str, Any]], /, *, limit: int = 1000, ordered: bool = True,
        raising: bool = True,
    ) -> AsyncIterator[Any]:  # fmt: skip
        """Run ``payloads`` with at most ``limit`` unfinished at once; yield results in order, or as they complete.

        A failed task raises its TaskError, or is yielded as that with ``raising=False``.
        """
        if limit < 1:
            raise InvalidPayload(f"limit={limit} is not usable: expected 1 or more unfinished tasks")
        async for _, result in self.tasks.map(capability, payloads, limit=limit, ordered=ordered):
            if raising and isinstance(result, TaskError):
                raise result
            yield result

    def task(self, id: str) -> Task:
        """A handle on a task by its id, also after a restart."""
        return Task(self.tasks, id, created=False)

    # -- runs

    async def start(
        self, workflow: str, input: Mapping[str, Any] | None = None, /, *, id: str | None = None, version: int = 1,
        on_conflict: str = "attach", signals: Iterable[tuple[str, Any]] = (), **fields: Any,
    ) -> RunHandle:  # fmt: skip
        """Start a run of a workflow; its input is ``input``, or the other keyword arguments.

        A run with this ``id`` that is there already is attached to; with ``on_conflict="fail"`` that is a RunConflict, with
        "replace" it is ended and begun anew. ``signals`` are (name, payload) that the run finds waiting. Atomic.
        """
        id = check_id(id, "run id") if id is not None else new_id()
        created = await self.journal.start(
            workflow,
            codec.either(input, fields),
            id=id,
            version=version,
            on_conflict=on_conflict,
            signals=list(signals),
        )
        return RunHandle(self.journal, self.tasks.results, id, created)

    def run(self, id: str) -> RunHandle:
        """A handle on a run by its id, also after a restart."""
        return RunHandle(self.journal, self.tasks.results, check_id(id, "run id"), created=False)

    async def runs(
        self,
        status: str | Collection[str] | None = None,
        workflow: str | None = None,
        since: datetime | None = None,
        limit: int = 50,
    ) -> list[Head]:
        """Heads of up to ``limit`` runs, newest first, without results; found by a bounded scan of those that are kept.

        ``status`` is one state or several, or ``open`` for all that have not ended; ``workflow`` a name, or ``name@2`` for
        one version; ``since`` (with a time zone) leaves out what was started before.
        """
        return list((await self.runlist.runs(states_of(status), workflow, limit, since)).runs)

    # -- schedules

    async def schedule(
        self,
        name: str,
        *,
        workflow: str | None = None,
        task: str | None = None,
        cron: str | None = None,
        every: float | timedelta | None = None,
        tz: str = "UTC",
        input: Mapping[str, Any] | None = None,
        version: int = 1,
        overlap: str = "skip",
        missed: str = "latest",
        start: datetime | None = None,
        end: datetime | None = None,
        jitter: float = 0.0,
    ) -> Schedule:
        """Start a workflow, or enqueue a task, at set times; each occurrence once, however many agents there are.

        ``cron`` is in the time zone ``tz``; ``every`` is in seconds, counted from ``start`` or from now. ``input`` is what each one
        gets. ``overlap`` says what happens while the one before has not ended: skip, allow, or replace (the old one is
        ended). ``missed`` is for occurrences that nobody could start within a minute, or before the next one came: latest (the last
        of them), skip, or all (the last 100 of them). ``jitter``: each starts up to so many seconds later, the
        same for whoever asks. The id of what is started is `<name>:20261122T070000Z`.

        The same name again changes the schedule: ``verdict`` of the handle is created, changed or unchanged. Atomic; safe to repeat.
        Raises InvalidSchedule.
        """
        return await self.schedules.put(
            name, workflow=workflow, task=task, cron=cron, every=every, tz=tz, input=input, version=version, overlap=overlap,
            missed=missed, start=start, end=end, jitter=jitter,
        )  # fmt: skip

    # -- auctions

    async def auction(self, capability: str, payload: Mapping[str, Any] | None = None, /, **options: Any) -> Auction:
        """Give a task of the capability to the agent that bids best; its payload is ``payload``, or the other keywords.

        Options (bidders, window, confirm, score, min_score, fallback, id, deadline) and errors as in `Auctions.open`.
        """
        known = {name: options.pop(name) for name in OPTIONS if name in options}
        return await self.auctions.open(capability, codec.either(payload, options), **known)

    # -- messages

    async def send(self, to: str, type: str, payload: Any = None) -> str:
        """Send a message to one agent (id or name); returns its id. Raises UnknownAgent, and what boundary it came to."""
        return await self.messages.send((await self.registry.resolve(to)).id, type, payload)

    async def broadcast(self, type: str, payload: Any = None) -> str:
        """Send a message to every live agent but the sender; returns its id. Raises what boundary it came to."""
        return await self.messages.broadcast(type, payload)

    async def publish(
        self, topic: str, payload: Any = None, *, require_subscriber: bool = False, id: str | None = None
    ) -> str:
        """Publish a message on a topic; returns its id. Durable when it returns, whatever its subscribers do; about 10,000 are kept.

        ``id`` is an idempotency key: the same one again within a minute is no second message. With ``require_subscriber`` it raises
        NoCapableAgent where there is neither a group nor a live subscriber; and what boundary it came to.
        """
        id = check_id(id, "message id") if id is not None else ""
        return await self.topics.publish(topic, payload, require_subscriber=require_subscriber, id=id)

    def subscribe(
        self, topic: str, group: str | None = None, start: str = "tail", *, lease: float = 10.0, prefetch: int = 1
    ) -> Subscription:
        """Messages of a topic: ``async with mesh.subscribe("news") as messages: async for message in messages: …``.

        Without ``group`` every message, by a cursor that begins at ``start``: tail, head (what is kept), or after an entry
        (`Subscription.cursor`). With one, each message goes to one member at least once: it is acknowledged when the loop goes on to the
        next, or by ``await message.done()``. One whose member did not renew it for ``lease`` seconds (the same for all members), or left
        the loop by an error, goes to another; after three such it is a dead letter of `inbox`. ``start`` is for a new group.
        ``prefetch``: taken at once. Iterating raises BroadcastGap where messages were dropped unread. Raises ConfigError, InvalidName.
        """
        return self.topics.subscribe(topic, group, start, lease=lease, prefetch=prefetch, mesh=self)

    async def request(
        self,
        type: str,
        payload: Any = None,
        *,
        to: str | None = None,
        timeout: float = 30.0,
        strategy: str = "two-choices",
        affinity: str | None = None,
        retries: int = 1,
        idempotent: bool = False,
        capability: str | None = None,
        version: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Any:
        """Ask one agent (``to``, else one that understands ``type``) and return its answer; errors as in `Messages.request`.

        Without ``to`` it is chosen by ``strategy``: two-choices, round-robin, least-loaded (read anew for it), or by
        ``affinity``: the same agent for the same key. An agent that surely did nothing (gone, Refused, NotUnderstood) is
        followed by up to ``retries`` others; one that died too, if the request is ``idempotent``. With ``capability`` only those
        are asked that offer it, in that ``version`` and with that ``metadata``. Raises NoCapableAgent.
        """
        if to is not None:
            to = (await self.registry.resolve(to)).id
            return await self.edges.watch(to, self.messages.request(to, type, payload, timeout))
        return await self.asking.request(
            type, payload, timeout, strategy=strategy, affinity=affinity, retries=retries, idempotent=idempotent,
            capability=capability, version=version, metadata=metadata,
        )  # fmt: skip

    # -- many agents at once

    async def vote(self, question: str, options: Sequence[str], *, voters: Voters = None, id: str | None = None, **rules: Unpack[Poll]) -> Decision:  # fmt: skip
        """Put a question to the vote and return its one decision: within the deadline, whatever becomes of voters and opener.

        ``voters``: None (all who declare the ``topic``), a capability, a list of agents, or {agent: whole weight}; fixed at the
        opening. ``method``: plurality, majority (default), weighted, supermajority (``threshold``, 2/3), unanimity, approval,
        ranked; measured by ``basis`` cast (default) or electorate. ``quorum`` in voters (default more than half), ``deadline`` in
        seconds (30), ``tie``: no_decision, priority, hash, runoff, status_quo:<option>, chair:<agent>; ``veto``; ``barred``
        {agent id: options that it may not choose}; ``change`` first or last; ``payload`` for the voters. The same ``id`` is the
        same vote. Raises InvalidVote, NoVoters, UnknownAgent, VoteConflict.
        """
        return await self.votes.vote(question, options, voters=voters, id=id, **rules)

    #: What others call it. It is a vote with a quorum and a record, and no consensus protocol among the agents.
    reach_consensus = vote

    async def collect(self, type: str, payload: Any = None, *, to: Voters = None, **limits: Unpack[Limits]) -> Collected:  # fmt: skip
        """Send a message of ``type`` to many agents (None: all with a handler for it) and gather what the handlers return.

        Ends when all (or ``expected``) answered, ``stall`` seconds after the last once ``at_least`` (1) came, or after ``timeout``
        (30) seconds. Raises TooFewAnswers (it says who was silent), NoVoters, UnknownAgent, InvalidVote.
        """
        return await self.votes.collect(type, payload, to=to, **limits)

    # -- agents and capabilities

    async def agents(self) -> list[AgentInfo]:
        """The live agents."""
        return await self.registry.agents()

    async def peers(self, capability: str | None = None, *, fresh: bool = False) -> list[PeerInfo]:
        """The live agents (that offer ``capability``) from memory, without a read; ``fresh`` reads them anew. See `Roster`."""
        return await self.roster.peers(capability, fresh=fresh)

    async def find(
        self, capability: str, *, version: int | None = None, metadata: Mapping[str, str] | None = None
    ) -> list[PeerInfo]:
        """Who can do tasks of ``capability``, those with free slots first; raises NoCapableAgent with its ``reason``.

        ``version`` and ``metadata`` leave out who does not say that of it. They are for choosing: the queue is one for all versions.
        """
        paused = bool(await self.registry.paused([capability]))
        return await self.asking.find(capability, paused=paused, version=version, metadata=metadata)

    def members(self, since: str = "0-0") -> AsyncIterator[Membership]:
        """Who joined, changed, left and died after the place ``since`` of the feed, in order, without end; '$' means from now."""
        return self.roster.members(since)

    async def pause(self, capability: str, *, by: str = "client") -> bool:
        """Let no agent begin tasks of the capability; False when it was paused already."""
        return await self.registry.pause(capability, by=by)

    async def resume(self, capability: str, *, by: str = "client") -> bool:
        """End a pause; False when there was none."""
        return await self.registry.resume(capability, by=by)
