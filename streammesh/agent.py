"""The agent: a plain worker process that finds tasks, runs handlers under a lease, and settles.

agent = Agent("librarian")

@agent.capability("summarize", retries=3, timeout=30)
async def summarize(text: str, sentences: int = 3) -> dict: ...

agent.run("redis://localhost:6379")
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, Unpack

import tenacity

from streammesh.bidding import BidFunction, check_bids
from streammesh.errors import ConfigError
from streammesh.gossiping import Gossiping
from streammesh.handlers import Handler, Isolation, Options
from streammesh.keys import check_name
from streammesh.mesh import Mesh
from streammesh.messages import check_type
from streammesh.offering import Offering
from streammesh.peers import Membership
from streammesh.rq.bridge import Bridge, bridged
from streammesh.serving import Serving
from streammesh.workflow import Workflow

__all__ = ["Agent"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_log = logging.getLogger("streammesh.agent")


class Agent:
    """Handlers under a name. The process that serves them gets an id of its own: ``<name>.<epoch>``.

    ``slots`` is how many tasks run at once, ``lease`` the seconds after which a silent agent counts as dead (it beats four
    times in one), ``grace`` the seconds that running tasks get when the agent stops. ``gossip`` says
    whether it takes part in the gossip (None: from ten agents on); see `gossip`.
    """

    def __init__(
        self, name: str, *, slots: int = 32, lease: float = 10.0, grace: float = 30.0, gossip: bool | None = None
    ) -> None:
        self.name = check_name(name, "agent name")
        if slots < 1:
            raise ConfigError(f"slots={slots} is not usable: expected 1 or more tasks at once")
        if not 0.2 <= lease <= 3600:
            raise ConfigError(f"lease={lease} is not usable: expected 0.2 to 3600 seconds")
        self.slots = slots
        self.lease = lease
        self.grace = grace
        self.gossiping = gossip
        self.handlers: dict[str, Handler] = {}
        self.listeners: dict[str, Callable[..., Any]] = {}
        self.workflows: dict[str, Workflow] = {}
        self.predicates: dict[str, Callable[..., Any]] = {}
        self.watching: list[tuple[frozenset[str], Callable[[Membership], Any]]] = []
        self.bidders: dict[str, BidFunction] = {}
        self.voters: dict[str, Callable[..., Any]] = {}
        self.bridges: dict[str, Bridge] = {}
        self._serving: Serving | None = None
        self._stuck = 0

    def capability(
        self,
        name: str,
        *,
        retries: int = 0,
        retry: tenacity.BaseRetrying | None = None,
        timeout: float | None = None,
        isolation: Isolation | None = None,
        retention: float | None = None,
        version: int = 1,
        metadata: Mapping[str, str] | None = None,
    ) -> Callable[[_Function], _Function]:
        """Declare a handler: its parameters are the payload's fields, what it returns (any JSON) is the result.

        ``async def`` runs on the loop, ``def`` in a thread, ``isolation="process"`` in a process that a timeout kills.
        ``retries`` more attempts follow a failure, after waits that double; ``retry=tenacity.Retrying(wait=, stop=, retry=)``
        says it in full (the waiting is done in the server). ``timeout`` is seconds for one attempt, ``retention`` seconds
        that the finished record is kept. A parameter annotated TaskContext receives the context. ``version`` and ``metadata``
        are for those who look for an agent (`Mesh.find`, `Mesh.request`): the queue of the capability is one, whoever has room
        takes from it. Raises ConfigError.
        """

        def declare(function: _Function) -> _Function:
            if name in self.handlers:
                raise ConfigError(f"agent {self.name!r} has a handler for capability {name!r} already")
            self.handlers[name] = Handler.make(
                name, function, retries=retries, retry=retry, timeout=timeout, isolation=isolation, retention=retention,
                version=version, metadata=metadata,
            )  # fmt: skip
            return function

        return declare

    async def announce(self, capability: str, function: Callable[..., Any], **options: Unpack[Options]) -> None:
        """Offer one capability more while serving; options as for `capability`. Returns when the others can see it.

        It ends with this serving: what is declared with `capability` is offered again by the next one. Raises ConfigError.
        """
        await self._offering().announce(Handler.make(capability, function, **options))

    async def withdraw(self, capability: str) -> None:
        """Offer one capability less while serving; returns when what ran of it has ended, and the others can see it.

        From the call on nothing new is begun. What waits stays for other agents, also for those that come later; what is
        addressed to this one is handed on. Cancelled before the end, it is offered as before. Not to be awaited by a handler
        of that capability. Raises ConfigError.
        """
        await self._offering().withdraw(capability)

    def _offering(self) -> Offering:
        if self._serving is None or not self._serving.id:
            raise ConfigError(f"agent {self.name!r} is not at work; declare what it offers with @agent.capability")
        return self._serving.offering

    def can_handle(self, capability: str) -> Callable[[_Function], _Function]:
        """Declare who decides whether this agent does a task of ``capability``, asked when it has taken one.

        ``function(payload, load: Load)``, async or plain (then in a thread), returns True or None to do it, False or
        ``Refuse(reason, retry_after)`` to hand it on to another agent, ``Defer(seconds)`` to put it off. No failure is
        counted and nothing is lost; see `streammesh.delegating` for where it goes. A handler may raise Refuse and Defer too,
        before it has done anything.
        """

        def declare(function: _Function) -> _Function:
            if capability in self.predicates:
                raise ConfigError(f"agent {self.name!r} has a can_handle for capability {capability!r} already")
            self.predicates[check_name(capability, "capability")] = function
            return function

        return declare

    def rq(
        self,
        function: str,
        *,
        queue: str = "default",
        capability: str | None = None,
        url: str | None = None,
        timeout: float = 180.0,
        retries: int = 0,
        retry: tenacity.BaseRetrying | None = None,
        retention: float | None = None,
        callbacks: bool = True,
    ) -> None:
        """Offer a function that RQ's workers run: ``agent.rq("reports.build", queue="high")``.

        Each task becomes one job of that queue (JSON serializer: start them as ``rq worker -S json high``) and ends as the job
        does; ``timeout`` seconds are RQ's to enforce, cancelling the task cancels or stops the job. ``capability`` is the
        function's name unless given, ``url`` the mesh's own server. ``callbacks=False`` where RQ's workers do not have
        streammesh installed: then the end of a job is seen about a second later. Retries are those of the mesh, each a job
        of its own. Raises ConfigError.
        """
        bridge = self.bridges.setdefault(url or "", Bridge(url))
        work = bridged(bridge, function, queue, timeout, callbacks=callbacks)
        self.capability(capability or function, retries=retries, retry=retry, retention=retention)(work)

    def workflow(self, name: str, *, version: int = 1) -> Callable[[_Function], _Function]:
        """Declare a workflow: ``async def f(run: Run, **input)``. Runs keep the version that they were started with."""

        def declare(function: _Function) -> _Function:
            made = Workflow.make(name, version, function)
            if made.stream in self.workflows:
                raise ConfigError(f"agent {self.name!r} has version {version} of workflow {name!r} already")
            self.workflows[made.stream] = made
            return function

        return declare

    def on(self, type: str) -> Callable[[_Function], _Function]:
        """Declare a handler for messages of a type: it takes the Message; what it returns answers a request.

        ``broadcast.gap`` is sent by nobody: it is heard where broadcasts were dropped before this agent read them, with
        {"lost": how many, "after": entry, "first": entry, "error": text of the BroadcastGap}.
        """

        def declare(function: _Function) -> _Function:
            if check_type(type) in self.listeners:
                raise ConfigError(f"agent {self.name!r} has a handler for messages of type {type!r} already")
            self.listeners[type] = function
            return function

        return declare

    def on_join(self, function: _Function) -> _Function:
        """Declare a function of a `Membership`: told of each agent that joins while this one is at work, in order."""
        self.watching.append((frozenset({"joined"}), function))
        return function

    def on_leave(self, function: _Function) -> _Function:
        """Declare a function of a `Membership`: told of each agent that left (reason left) or died (reason expired), in order.

        What was missed while nobody of this process was at work is in `Mesh.members`, from a cursor on.
        """
        self.watching.append((frozenset({"left", "died"}), function))
        return function

    def bids(self, capability: str) -> Callable[[_Function], _Function]:
        """Declare how this agent bids in auctions of a capability that it offers: ``f(call: Call) -> Bid | Refusal``.

        It is asked only while a slot is free. Without it the agent bids by load. Raises ConfigError.
        """

        def declare(function: _Function) -> _Function:
            check_bids(capability, function)
            if capability in self.bidders:
                raise ConfigError(f"agent {self.name!r} has a function that bids for {capability!r} already")
            self.bidders[capability] = function
            return function

        return declare

    def votes(self, topic: str = "default") -> Callable[[_Function], _Function]:
        """Declare a voter: ``async def f(ballot: Ballot)`` answers an option, a list of them (approval, ranked), or None to abstain.

        What it raises, or answers besides, is reported as an invalid ballot.
        """

        def declare(function: _Function) -> _Function:
            if check_type(topic) in self.voters:
                raise ConfigError(f"agent {self.name!r} votes on topic {topic!r} already")
            self.voters[topic] = function
            return function

        return declare

    def include(self, other: Agent) -> None:
        """Take over every handler of another agent, so that one process offers them all. Raises ConfigError on a clash."""
        for names, mine in (
            (other.handlers, self.handlers),
            (other.listeners, self.listeners),
            (other.workflows, self.workflows),
            (other.bidders, self.bidders),
            (other.voters, self.voters),
            (other.predicates, self.predicates),
        ):
            for name in names:
                if name in mine:
                    raise ConfigError(
                        f"agent {self.name!r} has a handler for {name!r} already; {other.name!r} brings another"
                    )
        self.handlers.update(other.handlers)
        # By what they are, not by their URL: the handlers that were taken over hold their own.
        self.bridges.update({f"{other.name} {url}": bridge for url, bridge in other.bridges.items()})
        self.listeners.update(other.listeners)
        self.workflows.update(other.workflows)
        self.predicates.update(other.predicates)
        self.watching += other.watching
        self.bidders.update(other.bidders)
        self.voters.update(other.voters)

    async def serve(self, mesh: Mesh, *, burst: bool = False, ready_file: Path | None = None) -> None:
        """Serve on an open mesh until `stop`; with ``burst`` until nothing waits. Leaves the registry in order."""
        if not (self.handlers or self.listeners or self.workflows or self.voters):
            raise ConfigError(
                f'agent {self.name!r} has no handler; declare one with @agent.capability("…") or @agent.on("…")'
            )
        for capability in self.bidders.keys() - self.handlers.keys():
            raise ConfigError(
                f"agent {self.name!r} bids for {capability!r} and has no handler for it; declare one with @agent.capability"
            )
        if self._serving is not None:
            raise ConfigError(
                f"agent {self.name!r} is being served already; make a second Agent, or start a second process"
            )
        serving = self._serving = Serving(
            mesh, self.name, dict(self.handlers), self.listeners, self.workflows, self.bidders, self.voters, slots=self.slots, lease=self.lease, grace=self.grace, ready_file=ready_file, gossip=self.gossiping,
            watching=self.watching, predicates=self.predicates,
        )  # fmt: skip
        try:
            await serving.serve(burst=burst)
        finally:
            for bridge in self.bridges.values():
                await bridge.close()
            self._stuck = len(serving.performer.stuck) if hasattr(serving, "performer") else 0
            self._serving = None

    def stop(self) -> None:
        """Drain: take nothing new, hand back what has not begun, finish what runs within ``grace``. Returns at once."""
        if self._serving is not None:
            self._serving.stop()

    @property
    def gossip(self) -> Gossiping | None:
        """While it is at work: what agents tell each other (set, get, cards, observed)."""
        return self._serving.gossiping if self._serving is not None and hasattr(self._serving, "gossiping") else None

    @property
    def serving(self) -> Serving | None:
        """The agent at work, while there is one: id, what is held, counters."""
        return self._serving

    def run(
        self,
        url: str | None = None,
        *,
        namespace: str | None = None,
        burst: bool = False,
        ready_file: Path | None = None,
        unsafe: bool = False,
    ) -> int:
        """Connect and serve until SIGTERM or SIGINT, which drain; a second one stops at once. Returns the exit code.

        0 when it ended by itself, 130 or 143 after a signal.
        """
        caught: list[int] = []

        async def main() -> None:
            loop = asyncio.get_running_loop()

            def on_signal(number: int) -> None:
                if caught:
                    _log.warning("agent=%s second signal: stopping at once, leases run out by themselves", self.name)
                    os._exit(128 + number)
                caught.append(number)
                if self._serving is None:
                    work.cancel()
                self.stop()

            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, on_signal, number)
            mesh = Mesh.connect(url, namespace=namespace, patience=None, name=f"streammesh:{self.name}", unsafe=unsafe)

            async def connected() -> None:
                async with mesh:
                    await self.serve(mesh, burst=burst, ready_file=ready_file)

            work = asyncio.create_task(connected())
            try:
                await work
            except asyncio.CancelledError:
                if not caught:
                    raise

        with asyncio.Runner(loop_factory=_fast_loop()) as runner:
            runner.run(main())
        code = 128 + caught[0] if caught else 0
        if self._stuck:
            # The interpreter would wait for these threads, for ever if need be; their tasks are handed back already.
            _log.warning("agent=%s %d threads did not end in time and end with the process", self.name, self._stuck)
            logging.shutdown()
            sys.stdout.flush()
            os._exit(code)
        return code

    def describe(self) -> Mapping[str, str]:
        """Capability -> the parameters that it takes."""
        return {name: handler.usage() for name, handler in self.handlers.items()}


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's loop where it is installed."""
    if sys.platform == "win32":
        return None
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
