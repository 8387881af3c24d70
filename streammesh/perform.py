"""Running one task: from the claimed entry to the outcome that is to be settled."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import anyio
import anyio.to_process

from streammesh import codec
from streammesh.claims import Claims, Held
from streammesh.delegating import Delegating
from streammesh.envelope import WIRE
from streammesh.errors import BoundaryError, Defer, InvalidPayload, MeshError, PayloadError, Refuse, Reject, Retry
from streammesh.handlers import Handler, TaskContext, in_process, in_thread, sendable, short, told, verdict_on
from streammesh.hearing import being_cancelled, milliseconds
from streammesh.mesh import Mesh
from streammesh.record import RETENTION, Lineage, lineage
from streammesh.rq.horses import Horses

__all__ = ["Performer"]

#: The most characters of a traceback that are kept.
LONGEST_DETAIL = 16384

_log = logging.getLogger("streammesh.agent")


class Performer:
    """Runs what `Claims` starts, for one agent; ``offset`` is server ms minus monotonic ms."""

    def __init__(
        self,
        mesh: Mesh,
        me: str,
        handlers: Mapping[str, Handler],
        slots: int,
    ) -> None:
        self._mesh = mesh
        self._me = me
        self.slots = slots
        self._handlers = handlers
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix=me)
        self._processes = anyio.CapacityLimiter(slots)
        #: RQ workers of this agent, once a handler needs one.
        self.horses: Horses | None = None
        self._loop = asyncio.get_running_loop()
        self._progress: dict[str, tuple[TaskContext, Any]] = {}
        self._reporting: set[str] = set()
        self._reports: set[asyncio.Task[None]] = set()
        self.contexts: dict[str, TaskContext] = {}
        #: Threads that could not be stopped and go on; they hold their slots.
        self.stuck: set[Future[Any]] = set()
        self.claims: Claims
        self.delegating: Delegating
        #: Takes the messages that came with the tasks (by an `XADD` into the inbox).
        self.hear: Callable[[Held, Claims], None]
        self.offset = 0.0
        #: Told the seconds until a retry that this agent has just put off.
        self.put_off: Callable[[float], None] = lambda _: None

    def start(self, held: Held) -> None:
        """Begin the work on a fresh entry."""
        if held.id:
            held.work = self._loop.create_task(self._task(held))
        else:
            self.hear(held, self.claims)

    # -- tasks

    async def _task(self, held: Held) -> None:
        slot: Callable[[], None] | None = self.claims.release_slot
        handler = self._handlers.get(held.capability)
        try:
            outcome = await self.delegating.assess(held, handler)
            if outcome is None:
                assert handler is not None
                outcome = await self._run(held, handler)
        except asyncio.CancelledError:
            if held.stopping == "":
                # Not by us: the loop is being torn down. The lease runs out, and somebody takes over.
                raise
            outcome = self._stopped(held, handler)
        except _StillInThread as still:
            # The thread cannot be stopped; its slot is free only when it ends.
            slot = None
            self.stuck.add(still.future)
            still.future.add_done_callback(lambda future: self._loop.call_soon_threadsafe(self._unstuck, future))
            outcome = still.outcome or self._stopped(held, handler)
        except Exception as error:
            # Not the handler's: ours, or a number that nobody expected. An attempt that is never settled would run for ever.
            _log.exception("agent=%s task=%s attempt=%d could not be performed", self._me, held.id, held.attempt)
            outcome = "dead", told(error), "unperformable", ""
        finally:
            self.contexts.pop(held.id, None)
            if slot:
                slot()
        if outcome[0] in ("fail", "again"):
            self.put_off(int(outcome[2]) / 1000)
        if held.stopping != "lost":
            self.claims.settle(held, *outcome)
        else:
            self.claims.forget(held)

    def _stopped(self, held: Held, handler: Handler | None) -> tuple[str, Any, Any, Any]:
        if held.stopping == "cancel":
            return "cancel", "cancelled while running", _keep(handler), ""
        return "release", "", "", ""

    async def _run(self, held: Held, handler: Handler) -> tuple[str, Any, Any, Any]:
        fields = held.fields
        limit = handler.timeout
        expires = False
        deadline = fields.get("deadline")
        try:
            given = fields.get("id", held.id)
            if given != held.id:
                # The claim found it unusable, and made one of the stream and the entry.
                raise InvalidPayload(
                    f"the entry's id {given[:80]!r} is not usable; expected 1 to 128 of A-Z a-z 0-9 _ . : -"
                )
            text = fields.get("payload", "")
            payload = handler.bind(codec.decode_object(text))
            if deadline is not None:
                left = (milliseconds(deadline) - self.now()) / 1000
                if left <= 0:
                    return "expire", "its deadline passed before it could start", _keep(handler), ""
                expires = limit is None or left < limit
                limit = left if expires else limit
        except PayloadError as error:
            return "dead", str(error), "invalid_payload", ""
        line = Lineage.of(fields, held.id, self._me)
        lineage.set(line)
        context = None
        if handler.context or handler.isolation == "thread":
            headers = {name: value for name, value in fields.items() if name not in WIRE}
            context = TaskContext(
                held.id, held.capability, held.attempt, held.failures, headers, int(deadline) if deadline else None,
                line.correlation, self._mesh, self._loop, self._report, line,
            )  # fmt: skip
            self.contexts[held.id] = context
            if handler.context:
                payload[handler.context] = context
        scope = None if limit is None else asyncio.timeout(limit)
        try:
            if scope is None:
                result = await self._call(handler, held, payload, text)
            else:
                async with scope:
                    result = await self._call(handler, held, payload, text)
            return self._completed(handler, result)
        except _StillInThread as still:
            if still.timed_out and limit is not None:
                still.outcome = self._timed_out(held, handler, limit, deadline, expires=expires)
            raise
        except Reject as reject:
            return "reject", short(reject.reason), _keep(handler), ""
        except (Refuse, Defer) as word:
            return await self.delegating.declined(held, word)
        except Retry as retry:
            return "again", short(str(retry)), int(retry.after * 1000), ""
        except BoundaryError as error:
            return "dead", told(error), "boundary", ""
        except TimeoutError as error:
            if scope is not None and limit is not None and scope.expired():
                return self._timed_out(held, handler, limit, deadline, expires=expires)
            return self._failed(held, handler, error, deadline)
        except asyncio.CancelledError:
            if being_cancelled():
                raise
            return self._failed(held, handler, RuntimeError("the handler cancelled itself"), deadline)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            # Also SystemExit: a handler that leaves the program leaves only its task.
            if isinstance(error, PayloadError) and handler.isolation == "process":
                return "dead", str(error), "invalid_result", ""
            return self._failed(held, handler, error, deadline)

    @staticmethod
    def _completed(handler: Handler, result: Any) -> tuple[str, Any, Any, Any]:
        if isinstance(result, bytes) and handler.isolation == "process":
            return "complete", result, _keep(handler), ""
        try:
            return "complete", codec.encode(result, what="result"), _keep(handler), ""
        except PayloadError as error:
            return "dead", short(str(error)), "invalid_result", ""

    async def _call(self, handler: Handler, held: Held, payload: dict[str, Any], text: str) -> Any:
        if handler.isolation == "inline":
            return await handler.function(**payload)
        if handler.isolation == "rq":
            self.horses = self.horses or Horses(self._mesh, self._me, self.slots)
            return await self.horses.run(
                handler.function, held.id, held.attempt, codec.decode_object(text), handler.timeout
            )
        if handler.isolation == "process":
            return await anyio.to_process.run_sync(
                in_process,
                handler.function,
                handler.asynchronous,
                text.encode(),
                cancellable=True,
                limiter=self._processes,
            )
        here = contextvars.copy_context()
        future = self._threads.submit(here.run, in_thread, partial(handler.function, **payload))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if future.done() or future.cancel():
                raise
            current = asyncio.current_task()
            still = _StillInThread(future)
            # An asyncio.timeout cancels too.
            still.timed_out = bool(current and not self._asked(current))
            raise still from None

    def _asked(self, work: asyncio.Task[Any]) -> bool:
        return any(held.work is work and held.stopping for held in self.claims.held.values())

    def _timed_out(
        self, held: Held, handler: Handler, limit: float, deadline: str | None, *, expires: bool
    ) -> tuple[str, Any, Any, Any]:
        # Not asked of the clock: our idea of the server's may be a few ms behind the timer.
        if expires:
            return "expire", "its deadline passed while it ran", _keep(handler), ""
        said = f"{handler.capability} took longer than {limit:.3g} s"
        return self._failed(held, handler, TimeoutError(said), deadline)

    def _failed(
        self, held: Held, handler: Handler, error: BaseException, deadline: str | None
    ) -> tuple[str, Any, Any, Any]:
        if deadline is not None and self.now() >= milliseconds(deadline):
            return "expire", "its deadline passed while it ran", _keep(handler), ""
        said = told(error)
        detail = sendable("".join(traceback.format_exception(error))[-LONGEST_DETAIL:])
        try:
            wait = verdict_on(handler, error, held.failures, self._age(held))
        except Exception as broken:
            return "dead", f"the retry policy of {held.capability} raised {broken!r} on {said}", "retry_policy", detail
        if wait is None:
            reason = "attempts" if handler.policy is not None else "failed"
            return "dead", said, reason, detail
        _log.info(
            "agent=%s task=%s attempt=%d failed, again in %.3f s: %s", self._me, held.id, held.attempt, wait, said
        )
        return "fail", said, int(wait * 1000), detail

    def _age(self, held: Held) -> float:
        """Seconds since the task was enqueued, for policies that stop after a delay."""
        stamp = held.entry.partition("-")[0]
        return max(0.0, (self.now() - int(stamp)) / 1000) if stamp.isdigit() else 0.0

    def now(self) -> float:
        """Milliseconds since 1970 by the server's clock."""
        return time.monotonic() * 1000 + self.offset

    def _unstuck(self, future: Future[Any]) -> None:
        self.stuck.discard(future)
        self.claims.release_slot()

    # -- progress

    def _report(self, context: TaskContext, value: Any) -> None:
        fresh = context.id not in self._progress
        self._progress[context.id] = (context, value)
        if fresh and context.id not in self._reporting:
            report = self._loop.create_task(self._write_progress(context.id))
            self._reports.add(report)
            report.add_done_callback(self._reports.discard)

    async def _write_progress(self, id: str) -> None:
        self._reporting.add(id)
        try:
            while id in self._progress:
                context, value = self._progress.pop(id)
                await self._mesh.tasks.progress(id, self._me, context.attempt, value)
        except MeshError as error:
            _log.warning("agent=%s task=%s progress not written: %s", self._me, id, error)
        finally:
            self._reporting.discard(id)

    def close(self) -> None:
        """Let the threads go; those that still run end with the process."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class _StillInThread(BaseException):
    """The task was stopped or timed out, and its thread goes on."""

    def __init__(self, future: Future[Any]) -> None:
        super().__init__()
        self.future = future
        self.timed_out = False
        self.outcome: tuple[str, Any, Any, Any] | None = None


def _keep(handler: Handler | None) -> int:
    seconds = handler.retention if handler and handler.retention is not None else RETENTION
    return max(1, int(seconds * 1000))
