"""Runs, as a client sees them: a handle on one, by its id, also after a restart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streammesh.journal import Head, Journal
from streammesh.record import new_id
from streammesh.results import Results

__all__ = ["RunHandle"]


class RunHandle:
    """A handle on one run; ``created`` is False when a run of that id was there already."""

    __slots__ = ("_journal", "_results", "created", "id")

    def __init__(self, journal: Journal, results: Results, id: str, created: bool) -> None:
        self._journal = journal
        self._results = results
        self.id = id
        self.created = created

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the end and return the result; nothing is polled. Raises RunFailed, RunCancelled, RunNotFound, ResultTimeout."""
        return await self._results.result(f"run {self.id}", timeout)

    async def head(self) -> Head:
        """The head of the run: its state and fields. Raises RunNotFound."""
        return await self._journal.head(self.id)

    async def status(self) -> Mapping[str, Any]:
        """What the workflow said by `Run.set_status`, without waking it."""
        status: Mapping[str, Any] = (await self.head()).status
        return status

    async def history(self) -> list[dict[str, Any]]:
        """The journal, oldest record first."""
        return await self._journal.history(self.id)

    async def signal(self, name: str, payload: Any = None, *, id: str = "") -> str:
        """Send a signal; with an ``id`` it is accepted once. Returns 'ok', 'duplicate' or 'closed'."""
        return await self._journal.deliver(self.id, "signal", name, payload, id)

    async def cancel(self, *, by: str = "client") -> str:
        """Ask the workflow to stop: it gets a CancelledError, and may clean up. Returns 'ok' or 'closed'."""
        return await self._journal.deliver(self.id, "cancel", by)

    async def terminate(self, *, by: str = "client") -> str:
        """End the run at once; no more of its code runs. Returns 'ok' or 'closed <state>'."""
        return await self._journal.act(self.id, "terminate", by=by)

    async def pause(self, *, by: str = "client") -> str:
        """Let no agent go on with the run until `resume`."""
        return await self._journal.act(self.id, "pause", by=by)

    async def resume(self, *, by: str = "client") -> str:
        """Go on with a paused or stuck run."""
        return await self._journal.act(self.id, "resume", by=by)

    async def fork(self, from_step: str, id: str | None = None, input: Mapping[str, Any] | None = None) -> RunHandle:
        """Start a new run that begins with what this one did before the step at ``from_step`` (its path in the journal).

        Steps before it keep their results; that step and all later ones run anew, with the code and the time of now, and so
        does what was open then and brought no result. Signals and cancellations that came later are left behind. With ``id`` it is made
        once; ``input`` replaces the input. This run is not touched, in whatever state it is. What the workflow reads of
        `Run.id` differs. Raises StepNotFound (it lists the paths), RunNotFound, RunConflict.
        """
        id = id or new_id()
        created = await self._journal.fork(self.id, from_step, id=id, input=input)
        return RunHandle(self._journal, self._results, id, created)

    async def skip(self, path: str, result: Any = None, *, by: str = "operator") -> str:
        """Give the open step at ``path`` a result in place of whoever works on it, whose work is taken back; a timer fires.

        The journal says who did. Returns 'ok' or 'closed <state>'. Raises StepNotFound (it lists the open ones), RunNotFound.
        """
        return await self._journal.skip(self.id, path, result, by=by)

    def __repr__(self) -> str:
        return f"RunHandle({self.id!r})"
