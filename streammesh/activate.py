"""Executing runs: from a claimed wake-up to the commit that parks or ends the run.

An activation replays the journal, then goes on live: what the workflow asks for is committed, what comes back is fed, until
nothing moves. It lingers a moment for the next answer, so that a chain of quick steps needs no new claim, and then parks:
a parked run is a list in the server and nothing anywhere else. Every commit carries the fence (agent, attempt); an
activation that lost its run finds out at its next commit and is dropped without a trace.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any

from streammesh import codec
from streammesh.claims import Claims, Held
from streammesh.commands import Start
from streammesh.errors import HistoryFull, MeshError, NonDeterminism, PayloadError, WorkflowRunaway
from streammesh.execution import Execution
from streammesh.handlers import in_thread, told
from streammesh.journal import Commit
from streammesh.mesh import Mesh
from streammesh.record import Lineage, lineage
from streammesh.replies import Answer
from streammesh.workflow import Run, Workflow

__all__ = ["Activator"]

#: How long, in seconds, an activation waits for the next answer before it parks its run.
LINGER = 0.2
#: Journal records from which a run is warned of its length, and those that it may not pass.
LONG, LONGEST = 4_000, 20_000
#: So many bytes of the last record tell whether a journal is the one that was read: the end is where its time is.
KNOWN_BY = 40

_log = logging.getLogger("streammesh.agent")


class Activator:
    """Executes the runs that `Claims` hands over, for one agent. ``offset`` is server ms minus monotonic ms."""

    def __init__(self, mesh: Mesh, me: str, workflows: Mapping[str, Workflow], threads: int) -> None:
        self._mesh = mesh
        self._me = me
        self._workflows = workflows
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"{me}-step")
        self.claims: Claims
        self.offset = 0.0
        # Where the clock is moved, whoever moves it waits for runs to park.
        self.linger = 0.005 if mesh.store.movable else LINGER
        #: Activations that ended because somebody else has the run.
        self.fenced = 0
        self._held: dict[str, Held] = {}

    def start(self, held: Held) -> None:
        """Begin an activation."""
        former = self._held.get(held.id)
        if former and former.work and not former.work.done() and not former.stopping:
            # The server handed the run out again, because it lost data or took us for dead: the former one is void.
            former.stopping = "lost"
            former.work.cancel()
        self._held[held.id] = held
        held.work = asyncio.get_running_loop().create_task(self._activate(held))

    async def _activate(self, held: Held) -> None:
        activation = _Activation(self, held)
        try:
            await activation.go()
            self.claims.forget(held)
        except asyncio.CancelledError:
            if held.stopping == "":
                raise
            if held.stopping == "release":
                self.claims.settle(held, "release", "", "", "")
            else:
                self.claims.forget(held)
        except MeshError as error:
            _log.warning(
                "agent=%s run=%s interrupted, it begins anew from its journal: %s", self._me, held.id[4:], error
            )
            # A server that is full, or away, is not asked again and again.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1.0)
            self.claims.settle(held, "release", "", "", "")
        finally:
            activation.close()
            if self._held.get(held.id) is held:
                del self._held[held.id]
            self.claims.release_slot()

    def now_iso(self) -> str:
        """Now, by the server's clock."""
        ms = time.monotonic() * 1000 + self.offset
        return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class _Activation:
    """One activation of one run."""

    def __init__(self, activator: Activator, held: Held) -> None:
        self._a = activator
        self._mesh: Mesh = activator._mesh
        self._held = held
        self._id = held.id.removeprefix("run ")
        self._execution = Execution(self._id, self._begin)
        self._moved = asyncio.Event()
        self._nudges: deque[tuple[int, str]] = deque()
        self._steps: set[asyncio.Task[None]] = set()
        # Not from 0: were data lost, another execution could be in the same attempt, and its commits are not ours.
        self._number = random.getrandbits(40)
        self._last = held.journal[-1].encode()[-KNOWN_BY:] if held.journal else b""
        self._warned = False

    def _begin(self, execution: Execution, input: dict[str, Any]) -> Any:
        workflow = self._a._workflows[self._held.capability]
        return workflow.function(
            Run(execution, self._mesh.keys, self._mesh.auctions.eligible, self._mesh.votes.electorate), **input
        )

    async def go(self) -> None:
        """Execute until the run is parked, ended, stuck or another's."""
        execution = self._execution
        self._mesh.replies.watch(f"run {self._id}", self._nudged)
        try:
            execution.load(self._held.journal)
            # Whoever began it may have heard more before it died: in doubt is said, and journaled, after all that.
            for path, doubted in execution.doubts.items():
                why = f"step {doubted['name']!r} at path {path!r} had begun when its agent died, and may run once at most; whether it did is unknown"
                execution.records.append({**doubted, "what": "step", "error": why, "doubt": True})
            # The journal is as old as the claim: look once more before waiting.
            peek = True
            while True:
                begun = self._start_steps()
                then, value = self._state()
                if execution.records or execution.effects or then != "continue" or peek:
                    word, heard = await self._commit(then, value)
                    if word == "fenced":
                        self._a.fenced += 1
                        return
                    if word == "ok" and then != "continue":
                        return
                    peek = False
                    if word == "ok":
                        self._run_steps(begun)
                    else:
                        execution.starts[:0] = begun
                    if heard:
                        continue
                if self._take_nudges():
                    continue
                if not await self._wait():
                    word, _ = await self._commit("park", self._execution.wanted())
                    if word != "more":
                        return
                peek = self._missed()
        except (NonDeterminism, HistoryFull, PayloadError, WorkflowRunaway) as error:
            await self._get_stuck(str(error))
        except MeshError:
            raise
        except Exception as error:
            # What fails here fails wherever the journal is read: an operator should look, not one agent after another.
            _log.exception("agent=%s run=%s could not be executed", self._a._me, self._id)
            await self._get_stuck(f"it could not be executed: {told(error)}")

    def _state(self) -> tuple[str, Any]:
        if self._execution.done:
            return self._execution.ending()
        return "continue", ""

    async def _commit(self, then: str, value: Any) -> tuple[str, bool]:
        """Commit what is new; returns the word, and whether the execution was fed anything."""
        execution = self._execution
        records, effects = execution.records, execution.effects
        execution.records, execution.effects = [], []
        written = records
        if then == "again":
            written = [execution.begin_again(value, self._a.now_iso()), *self._unread()]
            value = ""
        self._number += 1
        encoded = [codec.encode(record, what="journal record") for record in written]
        commit = Commit(
            self._id, self._held.attempt, self._number, execution.seen, self._last, then, value, encoded, effects
        )
        word, *tail = await self._send(commit)
        if word == "fenced":
            return word, False
        if word == "more":
            # Nothing was changed: what we wanted to say comes again, after what we had not heard.
            self._tell(tail)
            execution.records[:0] = records
            execution.effects[:0] = effects
            return word, True
        if then in ("continue", "park"):
            self._tell(tail)
            execution.committed(records)
            if encoded:
                self._last = encoded[-1][-KNOWN_BY:]
            self._check_length()
        return word, bool(tail) or any(record["what"] == "step" for record in records)

    def _tell(self, texts: list[str]) -> None:
        if texts:
            self._last = texts[-1].encode()[-KNOWN_BY:]
            self._execution.tell(texts)

    async def _send(self, commit: Commit) -> list[str]:
        self._held.settling = True
        try:
            return await self._mesh.journal.commit(self._a._me, commit)
        finally:
            self._held.settling = False

    def _unread(self) -> list[dict[str, Any]]:
        at = self._a.now_iso()
        return [
            {"what": "signal", "name": name, "payload": payload, "at": at} for name, payload in self._execution.unread()
        ]

    def _check_length(self) -> None:
        seen = self._execution.seen
        if seen > LONGEST:
            raise HistoryFull(
                f"the journal has {seen} records, {LONGEST} are allowed; use run.continue_as_new(…) in time"
            )
        if seen > LONG and not self._warned:
            self._warned = True
            _log.warning(
                "agent=%s run=%s has a journal of %d records; use run.continue_as_new(…)", self._a._me, self._id, seen
            )

    async def _get_stuck(self, why: str) -> None:
        _log.error("agent=%s run=%s is stuck: %s", self._a._me, self._id, why)
        self._execution.records, self._execution.effects = [], []
        while (await self._commit_stuck(why)) == "more":
            continue

    async def _commit_stuck(self, why: str) -> str:
        self._number += 1
        seen = self._execution.seen
        commit = Commit(self._id, self._held.attempt, self._number, seen, self._last, "stuck", why, [], [])
        word, *tail = await self._send(commit)
        if tail:
            self._last = tail[-1].encode()[-KNOWN_BY:]
        self._execution.seen += len(tail)
        return word

    # -- waiting

    def _nudged(self, answer: Answer) -> None:
        _, _, count = answer.state.partition(" ")
        if answer.value is not None and count.isdigit():
            self._nudges.append((int(count), answer.value))
            self._moved.set()

    def _take_nudges(self) -> bool:
        """Feed the records that came as nudges, as far as none is missing; True when there was one."""
        execution = self._execution
        texts: list[str] = []
        while self._nudges and self._nudges[0][0] <= execution.seen + len(texts) + 1:
            count, text = self._nudges.popleft()
            if count == execution.seen + len(texts) + 1:
                texts.append(text)
        self._tell(texts)
        return bool(texts)

    def _missed(self) -> bool:
        """Whether a nudge tells of a record beyond one that we have not seen: then the journal has to be asked."""
        return bool(self._nudges) and self._nudges[0][0] > self._execution.seen + 1

    async def _wait(self) -> bool:
        """Until something moves; False when the linger is over, and nothing runs here."""
        linger = None if self._steps else (self._a.linger if self._a.claims.free > 0 else 0.005)
        try:
            async with asyncio.timeout(linger):
                await self._moved.wait()
        except TimeoutError:
            return False
        self._moved.clear()
        return True

    # -- local steps

    def _start_steps(self) -> list[Start]:
        """Run the steps that are asked for; those that may run once at most are returned, for when that is on record."""
        starts, self._execution.starts = self._execution.starts, []
        self._run_steps([start for start in starts if not start.once])
        return [start for start in starts if start.once]

    def _run_steps(self, starts: list[Start]) -> None:
        for start in starts:
            step = asyncio.get_running_loop().create_task(self._step(start))
            self._steps.add(step)
            step.add_done_callback(self._steps.discard)

    async def _step(self, start: Start) -> None:
        attempt = 0
        # What it sends or enqueues belongs to the run's flow, and was caused by this step.
        hops, _, trace = self._held.fields.get("flow", "0 ").partition(" ")
        flow = {"correlation": self._id, "hops": hops, "traceparent": trace}
        lineage.set(Lineage.of(flow, f"{self._id}:{start.path}", self._a._me))
        while True:
            try:
                result = await self._call(start)
                codec.encode(result, what="result of the step")
                self._execution.step_done(start, result=result, at=self._a.now_iso())
                break
            except asyncio.CancelledError:
                raise
            except Exception as error:
                attempt += 1
                if attempt > start.retries or isinstance(error, PayloadError):
                    self._execution.step_done(start, error=told(error), at=self._a.now_iso())
                    break
                await asyncio.sleep(min(60.0, 0.1 * 2**attempt))
        self._moved.set()

    async def _call(self, start: Start) -> Any:
        work: Callable[[], Any] = partial(start.function, *start.args, **start.kwargs)
        if inspect.iscoroutinefunction(start.function):
            return await work()
        here = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._a._threads, partial(here.run, in_thread, work))

    def close(self) -> None:
        """Let go of everything in memory."""
        self._mesh.replies.unwatch(f"run {self._id}", self._nudged)
        for step in self._steps:
            step.cancel()
        self._execution.close()
