"""A small event loop on which a workflow runs the same way every time.

It has no sockets, threads or clock of its own. Ready callbacks run first in, first out; time is the time of the last thing
that the journal says; timers are commands of the run. Tasks get a path from where they were created, and hashes that do
not depend on the process, so that even sets of tasks (as in `asyncio.wait`) have one order. `drive` runs until nothing is
ready, and works inside another running loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn
from zlib import crc32

__all__ = ["RunLoop", "RunTask"]


class RunTask(asyncio.Task[Any]):
    """A task of a workflow: its ``path`` is the place in the tree of tasks where it was created ('' for the first)."""

    def __init__(self, work: Coroutine[Any, Any, Any], loop: RunLoop, path: str, number: int, name: str | None) -> None:
        self.path = path
        self.children = 0
        #: How many commands of a name this task has given so far.
        self.given: dict[str, int] = {}
        self._number = number
        super().__init__(work, loop=loop, name=name or f"{loop.run}/{path}")

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

    # -- driving

    def drive(self) -> None:
        """Run callbacks until none is ready."""
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            while self._ready:
                handle = self._ready.popleft()
                if not handle.cancelled():
                    handle._run()
        finally:
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
        self._timer(handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self._cancel(handle)

    def time(self) -> float:
        return self.now

    def create_future(self) -> asyncio.Future[Any]:
        return RunFuture(self, self._next())

    def create_task(self, work: Any, *, name: str | None = None, context: Any = None) -> RunTask:
        parent = asyncio.current_task(self) if self._driving() else None
        if isinstance(parent, RunTask):
            path = f"{parent.path}.{parent.children}" if parent.path else str(parent.children)
            parent.children += 1
        else:
            path = ""
        if context is None:
            return RunTask(work, self, path, self._next(), name)
        return context.run(RunTask, work, self, path, self._next(), name)  # type: ignore[no-any-return]

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

    def get_exception_handler(self) -> None:
        return None

    async def shutdown_asyncgens(self) -> None:
        return None

    # -- what a workflow may not do

    def _refuse(self, what: str) -> NoReturn:
        raise RuntimeError(
            f"a workflow cannot {what}: it would not happen again in the same way after a crash; do it in run.step(…) or a capability"
        )

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.Handle:
        self._refuse("be called from a thread")


#: What a workflow may not do, and the methods of the loop by which it would.
_REFUSED = {
    "use threads or executors": ("run_in_executor",),
    "open a connection or use a socket": (
        "create_connection", "create_unix_connection", "create_datagram_endpoint", "sock_connect", "sock_recv", "sock_sendall",
        "add_reader", "add_writer",
    ),
    "listen on a socket": ("create_server", "create_unix_server"),
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
