"""What the client hands out: tasks, runs and dead letters, each call waited for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from streammesh.auctions import Auction as AsyncAuction
from streammesh.bids import AuctionRecord
from streammesh.dead import Letter
from streammesh.envelope import Message
from streammesh.journal import Head
from streammesh.record import Record
from streammesh.runs import RunHandle as AsyncRunHandle
from streammesh.schedules import Schedule as AsyncSchedule
from streammesh.schedules import ScheduleRecord
from streammesh.tasks import Task as AsyncTask
from streammesh.topics import Subscription as AsyncSubscription

if TYPE_CHECKING:
    from streammesh.sync.mesh import Mesh

__all__ = ["Auction", "DeadLetters", "RunHandle", "Schedule", "Subscription", "Task"]


class Task:
    """A handle on one task, as `streammesh.Task`: its id, and whether this call created it."""

    __slots__ = ("_mesh", "_task")

    def __init__(self, mesh: Mesh, task: AsyncTask) -> None:
        self._mesh = mesh
        self._task = task

    @property
    def id(self) -> str:
        return self._task.id

    @property
    def created(self) -> bool:
        """False when the id was known before."""
        return self._task.created

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the outcome and return the result; errors as in `streammesh.Task.result`."""
        return self._mesh._wait(self._task.result, timeout)

    def record(self) -> Record:
        """Read the record. Raises TaskNotFound."""
        return self._mesh._wait(self._task.record)

    def cancel(self, *, by: str = "client") -> str:
        """Cancel the task; returns 'ok', 'running <agent>' (it was asked to stop), 'closed <state>' or 'missing'."""
        return self._mesh._wait(partial(self._task.cancel, by=by))

    def __repr__(self) -> str:
        return repr(self._task)


class RunHandle:
    """A handle on one run, as `streammesh.RunHandle`: its id, and whether this call created it."""

    __slots__ = ("_mesh", "_run")

    def __init__(self, mesh: Mesh, run: AsyncRunHandle) -> None:
        self._mesh = mesh
        self._run = run

    @property
    def id(self) -> str:
        return self._run.id

    @property
    def created(self) -> bool:
        """False when a run of that id was there already."""
        return self._run.created

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the end and return the result; errors as in `streammesh.RunHandle.result`."""
        return self._mesh._wait(self._run.result, timeout)

    def head(self) -> Head:
        """The head of the run: its state and fields. Raises RunNotFound."""
        return self._mesh._wait(self._run.head)

    def status(self) -> Mapping[str, Any]:
        """What the workflow said by `Run.set_status`, without waking it."""
        return self._mesh._wait(self._run.status)

    def history(self) -> list[dict[str, Any]]:
        """The journal, oldest record first."""
        return self._mesh._wait(self._run.history)

    def signal(self, name: str, payload: Any = None, *, id: str = "") -> str:
        """Send a signal; with an ``id`` it is accepted once. Returns 'ok', 'duplicate' or 'closed'."""
        return self._mesh._wait(partial(self._run.signal, name, payload, id=id))

    def cancel(self, *, by: str = "client") -> str:
        """Ask the workflow to stop: it gets a CancelledError, and may clean up. Returns 'ok' or 'closed'."""
        return self._mesh._wait(partial(self._run.cancel, by=by))

    def terminate(self, *, by: str = "client") -> str:
        """End the run at once; no more of its code runs. Returns 'ok' or 'closed <state>'."""
        return self._mesh._wait(partial(self._run.terminate, by=by))

    def pause(self, *, by: str = "client") -> str:
        """Let no agent go on with the run until `resume`."""
        return self._mesh._wait(partial(self._run.pause, by=by))

    def resume(self, *, by: str = "client") -> str:
        """Go on with a paused or stuck run."""
        return self._mesh._wait(partial(self._run.resume, by=by))

    def fork(self, from_step: str, id: str | None = None, input: Mapping[str, Any] | None = None) -> RunHandle:
        """Start a new run that begins with what this one did before a step; as `streammesh.RunHandle.fork`."""
        return RunHandle(self._mesh, self._mesh._wait(self._run.fork, from_step, id, input))

    def skip(self, path: str, result: Any = None, *, by: str = "operator") -> str:
        """Give the open step at ``path`` a result; as `streammesh.RunHandle.skip`."""
        return self._mesh._wait(partial(self._run.skip, path, result, by=by))

    def __repr__(self) -> str:
        return repr(self._run)


class Schedule:
    """A handle on one schedule, as `streammesh.Schedule`: its name, and what the call that returned it did."""

    __slots__ = ("_mesh", "_schedule")

    def __init__(self, mesh: Mesh, schedule: AsyncSchedule) -> None:
        self._mesh = mesh
        self._schedule = schedule

    @property
    def name(self) -> str:
        return self._schedule.name

    @property
    def verdict(self) -> str:
        """created, changed or unchanged; '' for a mere look."""
        return self._schedule.verdict

    def record(self) -> ScheduleRecord:
        """What is known of it. Raises ScheduleNotFound."""
        return self._mesh._wait(self._schedule.record)

    def next(self, count: int = 1) -> list[datetime]:
        """Up to ``count`` occurrences from now on, in its time zone; also of a paused one. Raises ScheduleNotFound."""
        return self._mesh._wait(self._schedule.next, count)

    def pause(self, *, by: str = "client") -> str:
        """Start nothing until `resume`; returns 'ok' or 'unchanged <state>'. Raises ScheduleNotFound."""
        return self._mesh._wait(partial(self._schedule.pause, by=by))

    def resume(self, *, by: str = "client") -> str:
        """End a pause: the next occurrence is the first from now on. Returns 'ok' or 'unchanged <state>'. Raises ScheduleNotFound."""
        return self._mesh._wait(partial(self._schedule.resume, by=by))

    def run_now(self, *, by: str = "client") -> str:
        """Start one at once, whatever is at work; returns the id of the run or task. Raises ScheduleNotFound."""
        return self._mesh._wait(partial(self._schedule.run_now, by=by))

    def remove(self, *, by: str = "client") -> bool:
        """Take it away; what it has started goes on. False when it was gone already."""
        return self._mesh._wait(partial(self._schedule.remove, by=by))

    def __repr__(self) -> str:
        return repr(self._schedule)


class Auction:
    """A handle on one auction, as `streammesh.Auction`: its id, and whether this call created it."""

    __slots__ = ("_auction", "_mesh")

    def __init__(self, mesh: Mesh, auction: AsyncAuction) -> None:
        self._mesh = mesh
        self._auction = auction

    @property
    def id(self) -> str:
        return self._auction.id

    @property
    def created(self) -> bool:
        """False when an auction of that id was there already."""
        return self._auction.created

    def result(self, timeout: float | None = None) -> Any:
        """Wait until the work is done and return its result; errors as in `streammesh.Auction.result`."""
        return self._mesh._wait(self._auction.result, timeout)

    def record(self) -> AuctionRecord:
        """The auction with its bids. Raises AuctionNotFound."""
        return self._mesh._wait(self._auction.record)

    def audit(self) -> list[dict[str, str]]:
        """What happened, oldest first."""
        return self._mesh._wait(self._auction.audit)

    def cancel(self, *, by: str = "client") -> str:
        """Cancel; returns as `streammesh.Auction.cancel`."""
        return self._mesh._wait(partial(self._auction.cancel, by=by))

    def __repr__(self) -> str:
        return repr(self._auction)


class DeadLetters:
    """The room of dead letters: list, replay, remove."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    def counts(self) -> dict[str, int]:
        """Capability -> number of dead letters, only where there are any."""
        return self._mesh.wait(lambda m: m.dead.counts())

    def letters(
        self, capability: str | None = None, *, error: str | None = None, since: str | None = None
    ) -> Iterator[Letter]:
        """Dead letters, oldest first per capability; ``error`` is a regular expression over reason and error, ``since`` an ISO time."""
        return self._mesh._each(lambda m: m.dead.letters(capability, error=error, since=since))

    def replay(self, letter: Letter) -> str:
        """Run a dead task again under the same id with a fresh budget; 'ok <id>', 'open <state>' or 'missing'."""
        return self._mesh.wait(lambda m: m.dead.replay(letter))

    def remove(self, letter: Letter) -> bool:
        """Take a letter away for good. False when it was gone already."""
        return self._mesh.wait(lambda m: m.dead.remove(letter))


class Subscription:
    """Messages of one topic, as `streammesh.topics.Subscription`: a context manager, and an iterator while it is entered."""

    def __init__(self, mesh: Mesh, subscription: AsyncSubscription) -> None:
        self._mesh = mesh
        self._subscription = subscription

    def __enter__(self) -> Self:
        self._mesh._wait(self._subscription.__aenter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mesh._wait(self._subscription.__aexit__, kind, error, trace)

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        async def one() -> Message | None:
            # A StopAsyncIteration cannot pass a future.
            return await anext(self._subscription, None)

        message = self._mesh._wait(one)
        if message is None:
            raise StopIteration
        return message

    def stop(self) -> None:
        """End the iteration after the message that is being handled; from any thread."""

        async def end() -> None:
            self._subscription.stop()

        self._mesh._wait(end)
