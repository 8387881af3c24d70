"""A small event loop on which a workflow runs the same way every time.

It has no sockets, threads or clock of its own. Ready callbacks run first in, first out; time is the time of the last thing
that the journal says; timers are commands of the run. Tasks get a path from where they were created, and hashes that do
not depend on the process, so that even sets of tasks (as in `asyncio.wait`) have one order. `drive` runs until nothing is
ready, and works inside another running loop.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, cast
from zlib import crc32

from streammesh.errors import WorkflowRunaway
from streammesh.places import maker, place

__all__ = ["RunLoop", "RunTask"]


#: Callbacks in one go, from one thing that happens to the next, that no sensible workflow has.
TURNS = 200_000
#: Times that a coroutine is closed, each time in the next `finally` that awaits something. One that never ends is left.
UNWOUND = 1_000


class Scope:
    """What names the commands and tasks of a task: its ``path``, the place in the tree of tasks where it was created ('' for
    the first), and how many commands of each name, and how many tasks, came from there so far."""

    __slots__ = ("children", "given", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.children = 0
        self.given: dict[str, int] = {}


class RunTask(asyncio.Task[Any]):
    """A task of a workflow."""

    def __init__(
        self, work: Coroutine[Any, Any, Any], loop: RunLoop, scope: Scope, number: int, name: str | None
    ) -> None:
        self.scope = scope
        self._number = number
        super().__init__(work, loop=loop, name=name or f"{loop.run}/{scope.path}")

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class RunFuture(asyncio.Future[Any]):
    """A future with a number for a hash, like RunTask."""

    def __init__(self, loop: RunLoop, number: int) -> None:
        self._number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class RunLoop(asyncio.AbstractEventLoop):
    """The loop of one execution of the run ``run``. ``timer`` is asked to set a durable timer for a handle."""

    def __init__(
        self, run: str, timer: Callable[[asyncio.TimerHandle], None], cancel: Callable[[asyncio.TimerHandle], None]
    ) -> None:
        self.run = run
        self.now = 0.0
        self._timer = timer
        self._cancel = cancel
        self._ready: deque[asyncio.Handle] = deque()
        # Hashes begin at a place of their own for each run: tasks of many runs share a weak set in asyncio.
        self._numbers = crc32(run.encode()) << 16
        #: What went wrong where nobody was looking.
        self.problems: list[dict[str, Any]] = []
        self._closed = False
        #: How often it was driven.
        self.drives = 0
        #: The scope of what runs in no task.
        self.loose = Scope("")
        #: Tasks that were made in the order of a list, for coroutines that asyncio will bring in the order of a set.
        self._ahead: dict[Any, RunTask] = {}

    # -- driving

    def drive(self) -> None:
        """Run callbacks until none is ready. Raises WorkflowRunaway when there are ever more."""
        turns = 0
        self.drives += 1
        with self._running():
            while self._ready:
                handle = self._ready.popleft()
                turns += 1
                if turns > TURNS:
                    task = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]
                    at = place(cast(Any, task.get_coro()), False) if isinstance(task, RunTask) else "?"
                    raise WorkflowRunaway(
                        f"it went on for {TURNS} turns without waiting for a step, a timer or a signal; a loop with asyncio.sleep(0) does [{at}]"
                    )
                if not handle.cancelled():
                    try:
                        handle._run()
                    except SystemExit:
                        # It is the result of the task that raised it. It ends a run, not the agent.
                        continue

    @contextmanager
    def _running(self) -> Iterator[None]:
        outer, hooks = asyncio._get_running_loop(), sys.get_asyncgen_hooks()
        asyncio._set_running_loop(self)
        # Or the loop outside would finish what our generators left unfinished, on itself.
        sys.set_asyncgen_hooks(None, None)
        try:
            yield
        finally:
            sys.set_asyncgen_hooks(*hooks)
            asyncio._set_running_loop(outer)

    def fire(self, handle: asyncio.TimerHandle) -> None:
        """The time of a timer has come."""
        if not handle.cancelled():
            self._ready.append(handle)

    def _next(self) -> int:
        self._numbers += 1
        return self._numbers

    # -- what asyncio needs

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self._closed:
            self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        handle._scheduled = True  # type: ignore[attr-defined]
        if not self._closed:
            self._timer(handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self._cancel(handle)

    def time(self) -> float:
        return self.now

    def create_future(self) -> asyncio.Future[Any]:
        return RunFuture(self, self._next())

    def create_task(self, work: Any, *, name: str | None = None, context: Any = None) -> RunTask:
        if work in self._ahead:
            return self._ahead.pop(work)
        by, awaitables = maker()
        if by == "as_completed":
            # It goes through a set of what it was given, and coroutines have addresses for hashes.
            if not isinstance(awaitables, (list, tuple)):
                raise TypeError(
                    "in a workflow, asyncio.as_completed takes a list of coroutines, or tasks: their order counts"
                )
            made = {one: self._make(one, None, None) for one in dict.fromkeys(awaitables) if asyncio.iscoroutine(one)}
            if work in made:
                self._ahead.update(made)
                return self._ahead.pop(work)
        # Before Python 3.12 wait_for made a task of what it waits for. The paths must be those of later Pythons.
        return self._make(work, name, context, alias=by == "wait_for")

    def _make(self, work: Any, name: str | None, context: Any, alias: bool = False) -> RunTask:
        current = asyncio.current_task(self) if self._driving() else None
        if isinstance(current, RunTask):
            scope = current.scope
            if not alias:
                path = f"{scope.path}.{scope.children}" if scope.path else str(scope.children)
                scope.children += 1
                scope = Scope(path)
        else:
            # Made by a callback, or the first of all.
            scope = Scope(f"c{self.loose.children}" if self.loose.children else "")
            self.loose.children += 1
        if context is None:
            task = RunTask(work, self, scope, self._next(), name)
        else:
            task = context.run(RunTask, work, self, scope, self._next(), name)
        if self._closed:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        return task

    @property
    def scope(self) -> Scope:
        """Of what runs now."""
        current = asyncio.current_task(self)
        return current.scope if isinstance(current, RunTask) else self.loose

    def _driving(self) -> bool:
        return asyncio._get_running_loop() is self

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.problems.append(context)

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        return None

    def is_running(self) -> bool:
        return self._driving()

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True
        self._ready.clear()

    def unwind(self, coroutine: Any) -> None:
        """Close a coroutine of this loop, closed itself; what its `finally` blocks begin goes nowhere.

        One that awaits something in a `finally` is closed there again, and so on to its end: whatever is left of it would be
        closed by the garbage collector, on the loop outside.
        """
        with self._running():
            for _ in range(UNWOUND):
                try:
                    coroutine.close()
                except BaseException as error:
                    self.problems.append({"message": "closing", "exception": error})
                else:
                    return

    def get_exception_handler(self) -> None:
        return None

    async def shutdown_asyncgens(self) -> None:
        return None

    # -- what a workflow may not do

    def _refuse(self, what: str) -> NoReturn:
        _refuse(what)

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.Handle:
        self._refuse("be called from a thread")


def _refuse(what: str) -> NoReturn:
    raise RuntimeError(
        f"a workflow cannot {what}: it would not happen again in the same way after a crash; do it in run.step(…) or a capability"
    )


#: What a workflow may not do, and the methods of the loop by which it would.
_REFUSED = {
    "use threads or executors": ("run_in_executor",),
    "open a connection or use a socket": (
        "create_connection", "create_unix_connection", "create_datagram_endpoint", "sock_connect", "sock_recv", "sock_sendall",
        "add_reader", "add_writer",
    ),
    "listen on a socket": ("create_server", "create_unix_server"),
    "use a pipe": ("connect_read_pipe", "connect_write_pipe"),
    "start a process": ("subprocess_exec", "subprocess_shell"),
    "ask the network": ("getaddrinfo", "getnameinfo"),
    "handle signals of the process": ("add_signal_handler",),
}  # fmt: skip


def _refusing(what: str) -> Callable[..., NoReturn]:
    def refuse(self: RunLoop, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse(what)

    return refuse


for _what, _names in _REFUSED.items():
    for _name in _names:
        setattr(RunLoop, _name, _refusing(_what))

#: The same without asyncio, by the names of Python's audit events.
_WATCHED = {
    "socket.__new__": "open a connection or use a socket",
    "socket.getaddrinfo": "ask the network",
    "subprocess.Popen": "start a process",
    "os.system": "start a process",
    "os.posix_spawn": "start a process",
    "os.fork": "start a process",
    "_thread.start_new_thread": "use threads or executors",
}


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event in _WATCHED and isinstance(asyncio._get_running_loop(), RunLoop):
        _refuse(_WATCHED[event])


sys.addaudithook(_audit)
