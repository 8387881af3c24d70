"""One execution of a run: the workflow's coroutine against its journal, as a pure state machine.

The journal holds, in order, *commands* (what the workflow asked for, each under a path that does not depend on the order
of others) and *notifications* (what came back, in the order in which it was recorded). An execution feeds notifications
one at a time and lets the coroutine run until nothing moves, live and in replay alike; so every race has the same winner
again. A command that the journal knows is not given again. One that differs from what the journal knows is non-determinism:
it is raised before any result could reach the wrong place.

Nothing here talks to a server: `out` collects what is to be committed, `starts` the local steps that are to run.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NoReturn

from streammesh import codec
from streammesh.commands import Effect, Start, asked_again
from streammesh.errors import NonDeterminism, StepFailed, StepInDoubt
from streammesh.forks import Inherited
from streammesh.loop import RunLoop, RunTask
from streammesh.places import place
from streammesh.records import COMMANDS, error_of, is_told, named

__all__ = ["Execution"]

_UNUSUAL = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(slots=True)
class _Waiter:
    name: str
    future: asyncio.Future[Any] = field(repr=False)


class Execution:
    """The run ``id`` executed by ``begin(execution, input)``, which makes the workflow's coroutine."""

    def __init__(self, id: str, begin: Callable[[Execution, dict[str, Any]], Coroutine[Any, Any, Any]]) -> None:
        self.id = id
        self.loop = RunLoop(id, self._set_timer, self._cancel_timer)  # type: ignore[abstract]
        self._begin = begin
        self._root: RunTask | None = None
        #: How many journal records have been read.
        self.seen = 0
        #: How many notifications the coroutine has been given.
        self.consumed = 0
        self.records: list[dict[str, Any]] = []
        self.effects: list[Effect] = []
        self.starts: list[Start] = []
        self._known: dict[str, dict[str, Any]] = {}
        self._expected: deque[dict[str, Any]] = deque()
        self._settled = -1
        self._cancelled_by = ""
        self._given: set[str] = set()
        self._pending: dict[str, asyncio.Future[Any]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._timer_paths: dict[int, str] = {}
        self._signals: dict[str, deque[Any]] = {}
        self._waiters: list[_Waiter] = []
        self.workflow = ""
        self.version = 1
        self.status: dict[str, Any] = {}
        #: How often the run was continued as new, or replaced: what its steps leave behind must not meet the next ones.
        self.generation = 0
        #: The run whose chance this one's is: its own id, or that of the run that it was forked of.
        self.seed = id
        self._fork: Inherited | None = None
        self._patches: dict[str, bool] = {}
        self._broken: NonDeterminism | None = None
        self.doubts: dict[str, dict[str, Any]] = {}

    # -- reading the journal

    def load(self, texts: list[str]) -> None:
        """Read the whole journal, run the coroutine through it, and leave what is new in records, effects and starts.

        Raises NonDeterminism when the code does not fit the journal.
        """
        records = [codec.decode(text, what="journal record", limit=64 * 1024 * 1024) for text in texts]
        first = records[0]
        for record in records:
            if record["what"] in COMMANDS:
                self._known[record["path"]] = record
                self._settled = max(self._settled, record["after"])
        self._expected = deque(sorted(self._known.values(), key=lambda record: record["after"]))
        self.seen = len(texts)
        self.workflow, self.version = first["workflow"], first["version"]
        self.generation, self.seed = first.get("generation", 0), first.get("seed", self.id)
        self._fork = Inherited(records) if "fork" in first else None
        self._clock(first)
        told = [record for record in records[1:] if is_told(record)]
        try:
            work = self._begin(self, first["input"])
        except TypeError as error:
            # Not what the workflow takes: an answer, as if its code had raised it.
            work = _raise(error)
        self._root = self.loop.create_task(work)
        self._settle()
        for record in told:
            self._feed(record)
        again = self._fork.again() if self._fork else None
        if again is not None:
            self.records.insert(0, {"what": "reissued", "paths": [effect.path for effect in again]})
            if self.status:
                again.append(Effect("status", "status", (codec.encode(self.status, what="status"),)))
            self.effects[:0] = again

    def tell(self, texts: list[str]) -> None:
        """Feed records that came since, in their order."""
        self.seen += len(texts)
        for text in texts:
            self._feed(codec.decode(text, what="journal record", limit=64 * 1024 * 1024))

    def committed(self, records: list[dict[str, Any]]) -> None:
        """Our own records are in the journal, after what was told: the steps among them are notifications as well."""
        self.seen += len(records)
        for record in records:
            if record["what"] == "step":
                self._feed(record)

    def _feed(self, record: dict[str, Any]) -> None:
        self.consumed += 1
        self._clock(record)
        if self._fork and "of" in record:
            self._fork.closed(record["of"])
        match record["what"]:
            case "done":
                self._resolve(record["of"], record["result"], None)
            case "failed":
                self._resolve(record["of"], None, error_of(record))
            case "step":
                error: Any = StepFailed(record["error"], path=record["path"]) if "error" in record else None
                error = StepInDoubt(record["error"]) if "doubt" in record else error
                self._resolve(record["path"], record.get("result"), error)
            case "fired":
                handle = self._timers.pop(record["of"], None)
                if handle is not None:
                    self.loop.fire(handle)
            case "signal":
                self._signal(record["name"], record["payload"])
            case "cancel":
                self._cancelled_by = record["by"]
                if self._root is not None and not self._root.done():
                    self._root.cancel()
            case "end" if record["state"] != "cancelled" and (not self.done or self.records):
                asked = f" asks for {named(self.records[0])}" if self.records else ""
                raise NonDeterminism(f"the journal ends here, and the code{asked or ' goes on'}{self._where()}")
        self._settle()

    def _settle(self) -> None:
        """Let everything that can move move; then all that the journal says was given by now must have been given."""
        self.loop.drive()
        if self._broken is not None:
            # Whatever the workflow made of it.
            raise self._broken
        while self._expected and self._expected[0]["after"] <= self.consumed:
            record = self._expected.popleft()
            if record["path"] not in self._given:
                self._break(
                    f"the journal has {named(record)} at path {record['path']!r} (after {record['after']} notifications), and the code "
                    f"did not come to it"
                )

    def _clock(self, record: dict[str, Any]) -> None:
        at = record.get("at")
        if at:
            self.loop.now = max(self.loop.now, datetime.fromisoformat(at).timestamp())
        if self._fork:
            self.loop.now = self._fork.clock(self.consumed, self.loop.now)

    def _resolve(self, path: str, result: Any, error: BaseException | None) -> None:
        future = self._pending.pop(path, None)
        if future is None or future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    # -- giving commands

    def path(self, name: str) -> str:
        """The path of the next command called ``name`` in the current task."""
        scope = self.loop.scope
        given, base = scope.given, f"{scope.path}:" if scope.path else ""
        name = _UNUSUAL.sub("-", name) or "command"
        number = given.get(name, 0)
        given[name] = number + 1
        return f"{base}{name}.{number}"

    def command(self, what: str, name: str, journal: dict[str, Any], effect: Effect | None, path: str) -> bool:
        """Give a command; True when it is new. Raises NonDeterminism when the journal has another one at its path."""
        if self._broken is not None:
            raise self._broken
        known = self._known.get(path)
        self._given.add(path)
        if known is not None:
            same = known["what"] == what or (what == "begin" and known["what"] == "step")
            if not same or known.get("name", name) != name or not self._same_child(path, known, journal):
                to = f" {journal['run']}" if "run" in journal else ""
                self._break(f"at path {path!r} the journal has {named(known)}, and the code gives {what} {name!r}{to}")
            if known["after"] != self.consumed:
                self._break(
                    f"at path {path!r} the journal has {named(known)} after {known['after']} notifications, and the code gives it "
                    f"after {self.consumed}"
                )
            if self._fork:
                self._fork.given(path, effect)
            return False
        if self._settled > self.consumed:
            self._break(
                f"the code gives {what} {name!r} at path {path!r} after {self.consumed} notifications, and the journal, which goes on to "
                f"{self._settled}, does not have it; guard it with run.patched(…)"
            )
        self.records.append({"what": what, "path": path, "name": name, **journal, "after": self.consumed})
        if effect is not None:
            self.effects.append(effect)
        return True

    def _same_child(self, path: str, known: dict[str, Any], journal: dict[str, Any]) -> bool:
        was, now = known.get("run"), journal.get("run")
        return was == now or bool(self._fork and was and now and self._fork.same_child(path, was, now, self.id))

    def child(self, path: str, id: str) -> str:
        """The id of the child that the command at ``path`` began; in a fork it may be one of the run before."""
        return self._fork.child(path, self._known[path]["run"], id) if self._fork and path in self._known else id

    def _break(self, why: str) -> NoReturn:
        """The code does not fit: raised here, and again where the workflow cannot catch it."""
        self._broken = NonDeterminism(f"{why}{self._where()}")
        raise self._broken

    def mark(self, path: str, id: str) -> bool:
        """Whether a patch applies: recorded, or where the journal has no more commands (it is recorded now). Once said, it stays."""
        if path not in self._patches:
            if path not in self._known and (
                self._settled > self.consumed or any(record["path"] not in self._given for record in self._expected)
            ):
                self._patches[path] = False
            else:
                self.command("patched", id, {}, None, path)
                self._patches[path] = True
        return self._patches[path]

    async def outcome(self, path: str, drop: tuple[Any, ...] | None = None) -> Any:
        """Wait for the notification that answers ``path``; when the waiting is cancelled, take the command back."""
        future = self.loop.create_future()
        self._pending[path] = future
        try:
            return await future
        except asyncio.CancelledError:
            self._pending.pop(path, None)
            self.doubts.pop(path, None)
            # A step that nobody waits for any more is not begun again by whoever takes the run over.
            self.starts = [start for start in self.starts if start.path != path]
            if drop is not None:
                self.effect("drop", path, drop)
            raise

    def effect(self, verb: str, path: str, args: tuple[Any, ...]) -> None:
        """Set something in motion without a record; not again where the journal shows that it was committed."""
        theirs = verb == "drop" and self._fork is not None and self._fork.closed(path)
        if self._settled <= self.consumed and not theirs:
            self.effects.append(Effect(verb, path, args))

    def local(
        self,
        path: str,
        name: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        once: bool,
        retries: int,
    ) -> None:
        """A local step: run it now, unless the journal has its outcome."""
        known = self._known.get(path)
        if known is not None and known["what"] == "step":
            self.command("begin" if once else "step", name, {}, None, path)
            return
        if once:
            if not self.command("begin", name, {}, None, path):
                self.doubts[path] = known or {}
                return
        elif known is not None:
            self._break(f"at path {path!r} the journal has {named(known)}, and the code gives step {name!r}")
        self._given.add(path)
        self.starts.append(Start(path, name, function, args, kwargs, self.consumed, retries, once))

    def step_done(self, start: Start, result: Any = None, error: str | None = None, at: str = "") -> None:
        """The outcome of a local step, for the next commit."""
        record: dict[str, Any] = {"what": "step", "path": start.path, "name": start.name}
        if error is not None:
            record["error"] = error
        else:
            record["result"] = result
        record["after"] = start.after
        if at:
            record["at"] = at
        self.records.append(record)

    # -- timers and signals

    def _set_timer(self, handle: asyncio.TimerHandle) -> None:
        path = self.path("timer")
        self._timers[path] = handle
        self._timer_paths[id(handle)] = path
        due = int(handle.when() * 1000) + 1
        self.command("timer", "timer", {"due": due}, Effect("timer", path, (due,)), path)

    def _cancel_timer(self, handle: asyncio.TimerHandle) -> None:
        path = self._timer_paths.pop(id(handle), None)
        if path is not None and self._timers.pop(path, None) is not None:
            self.effect("drop", path, ("timer",))

    async def signal(self, name: str) -> Any:
        """The next signal of that name: one that came before, or the next to come."""
        waiting = self._signals.get(name)
        if waiting:
            return waiting.popleft()
        waiter = _Waiter(name, self.loop.create_future())
        self._waiters.append(waiter)
        try:
            return await waiter.future
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _signal(self, name: str, payload: Any) -> None:
        for waiter in self._waiters:
            if waiter.name == name and not waiter.future.done():
                self._waiters.remove(waiter)
                waiter.future.set_result(payload)
                return
        self._signals.setdefault(name, deque()).append(payload)

    # -- the state of things

    @property
    def done(self) -> bool:
        return self._root is not None and self._root.done()

    def ending(self) -> tuple[str, Any]:
        """How the finished coroutine ended: ('succeeded', JSON), ('failed' | 'cancelled', text) or ('again', input)."""
        assert self._root is not None
        try:
            return "succeeded", codec.encode(self._root.result(), what="result of the run")
        except asyncio.CancelledError as cancelled:
            return "cancelled", f"cancelled by {self._cancelled_by}" if self._cancelled_by else str(
                cancelled
            ) or "cancelled"
        except NonDeterminism:
            raise
        except BaseException as error:
            again = asked_again(error)
            if again is not None:
                return "again", again.fields
            return "failed", f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

    def wanted(self) -> str:
        """The names of the signals that are waited for, as JSON; '' for none."""
        names = sorted({waiter.name for waiter in self._waiters})
        return codec.encode(names).decode() if names else ""

    def unread(self) -> list[tuple[str, Any]]:
        """Signals that came and were not taken."""
        return [(name, payload) for name, payloads in self._signals.items() for payload in payloads]

    def begin_again(self, fields: dict[str, Any], at: str) -> dict[str, Any]:
        """The first record of the journal that follows on `Again`."""
        start = {"what": "start", "workflow": self.workflow, "version": self.version, "input": fields}
        return {**start, "generation": self.generation + 1, "at": at}

    def _where(self) -> str:
        """File and line in the workflow's own code, for an operator."""
        work: Any = self._root.get_coro() if self._root is not None else None
        found = place(work, asyncio._get_running_loop() is self.loop)
        return f" [{found}]" if found else ""

    def close(self) -> None:
        """Let go of the coroutine, without running any more of it than its `finally` blocks."""
        self.loop.close()
        if self._root is not None and not self._root.done():
            for task in asyncio.all_tasks(self.loop):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                self.loop.unwind(task.get_coro())


async def _raise(error: Exception) -> NoReturn:
    raise error


Begin = Callable[[Execution, dict[str, Any]], Awaitable[Any]]
