"""Tasks: enqueue, wait, look, cancel, settle. The truth about a task is its record; everything here reads or moves it.

What is atomic: a call of `enqueue` writes the record and the entry of each task, or neither. What a crash does: a call
that raised StoreUnavailable is unknown; the same call with the same id is safe and makes no second task.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from streammesh import codec
from streammesh.batch import Batch
from streammesh.boundaries import Boundaries, refusal
from streammesh.choice import Chosen
from streammesh.errors import InvalidPayload, PayloadConflict, ResultTimeout, TaskError, TaskNotFound
from streammesh.keys import LANES, Keys, check_id, check_name
from streammesh.moments import iso_now, moment, when
from streammesh.record import RETENTION, Record, lineage, new_id
from streammesh.replies import Answer, Replies
from streammesh.results import Results
from streammesh.store import Link, Reply, Store

__all__ = ["Task", "Tasks"]

#: Header names that the wire uses itself.
_RESERVED = frozenset(
    ("id", "payload", "attempt", "at", "capability", "deadline", "run", "step", "correlation", "causation", "hops", "via", "traceparent", "by", "refused", "reply_to", "type", "bounds")
)  # fmt: skip


class Task:
    """A handle on one task: its id, and whether this call created it (``created`` is False for a known id)."""

    __slots__ = ("_tasks", "_told", "created", "id")

    def __init__(self, tasks: Tasks, id: str, created: bool, told: asyncio.Future[Answer] | None = None) -> None:
        self._tasks = tasks
        self.id = id
        self.created = created
        self._told = told

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the outcome and return the result. Nothing is polled; a restarted client may ask again by id.

        Raises TaskFailed, TaskDead, TaskCancelled, TaskExpired, TaskNotFound, or ResultTimeout after ``timeout`` s.
        """
        told, self._told = self._told, None
        return await self._tasks.result(self.id, timeout, told)

    async def record(self) -> Record:
        """Read the record. Raises TaskNotFound."""
        return await self._tasks.record(self.id)

    async def cancel(self, *, by: str = "client") -> str:
        """Cancel the task; returns 'ok', 'running <agent>' (it was asked to stop), 'closed <state>' or 'missing'."""
        return (await self._tasks.cancel([self.id], by=by))[0]

    def __repr__(self) -> str:
        return f"Task({self.id!r})"


#: One task on its way out: stream, capability, id, payload, when, (name, value, …).
_Out = tuple[str, str, str, bytes, str, tuple[Any, ...]]


class Tasks:
    """The room of tasks in one mesh."""

    def __init__(self, store: Store, keys: Keys, replies: Replies, boundaries: Boundaries | None = None) -> None:
        self._store = store
        self._keys = keys
        self._replies = replies
        self.boundaries = boundaries or Boundaries()
        self.results = Results(store, keys, replies)
        self.result = self.results.result
        self._out = [self._outgoing(shard) for shard in range(keys.shards)]

    # -- enqueue

    def _outgoing(self, shard: int) -> Batch[_Out, str]:
        link = self._store.link("enqueue")

        async def send(items: list[_Out]) -> Sequence[str]:
            return await self._send(shard, items, link)

        return Batch(send, limit=1000, weight=lambda item: len(item[3]))

    async def _send(self, shard: int, items: Sequence[_Out], link: Link | None = None) -> list[str]:
        keys = [self._keys.prefix(shard)]
        index: dict[str, int] = {}
        args: list[Any] = [len(items)]
        for stream, capability, id, payload, due, extra in items:
            at = index.get(stream)
            if at is None:
                keys.append(stream)
                at = index[stream] = len(keys)
            args += (at, capability, id, payload, due, len(extra) // 2)
            args += extra
        verdicts: list[str] = await self._store.run("task_enqueue", keys, args, link)
        return verdicts

    def _prepare(
        self,
        capability: str,
        id: str,
        payload: bytes,
        when: str,
        priority: str,
        to: str | None,
        extra: tuple[Any, ...],
    ) -> tuple[int, _Out]:
        shard = self._keys.shard_of(id)
        stream = self._keys.inbox(to, shard) if to else self._keys.tasks(capability, priority, shard)
        return shard, (stream, capability, id, payload, when, extra)

    def _extra(
        self,
        deadline: float | datetime | None,
        priority: str,
        to: str | None,
        headers: Mapping[str, str] | None,
        wait: bool,
    ) -> tuple[Any, ...]:
        extra: list[Any] = []
        line = lineage.get()
        until = moment(deadline, "deadline") if deadline is not None else ""
        if line is not None:
            until = line.until(until)
        if until:
            extra += ("deadline", until)
        if line is not None:
            extra += (*line.pairs(), "bounds", self.boundaries.for_task())
            if line.agent:
                extra += ("by", line.agent)
        if priority != "normal":
            if priority not in LANES:
                raise InvalidPayload(f"priority {priority!r} is not known; expected one of {', '.join(LANES)}")
            extra += ("priority", priority)
        if to:
            extra += ("to", to, "chosen", "1") if isinstance(to, Chosen) else ("to", to)
        if wait:
            extra += ("waiters", self._replies.client)
        if headers and (len(headers) > 64 or sum(len(str(value)) for value in headers.values()) > 65536):
            raise InvalidPayload("too many headers: 64 of together 65536 characters are allowed")
        for name, value in (headers or {}).items():
            if name in _RESERVED or not codec.is_text(value):
                raise InvalidPayload(
                    f"header {name!r} cannot be used: names are free except the wire's own, values are strings"
                )
            extra += (f"header.{check_id(name, 'header name')}", value)
        return tuple(extra)

    async def enqueue(
        self,
        capability: str,
        payload: Mapping[str, Any],
        *,
        id: str | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        deadline: float | datetime | None = None,
        priority: str = "normal",
        to: str | None = None,
        headers: Mapping[str, str] | None = None,
        wait: bool = False,
    ) -> Task:
        """Enqueue one task; see `Mesh.enqueue` for what the options mean. ``wait`` says that its result will be awaited."""
        check_name(capability, "capability")
        given = id is not None
        id = check_id(id, "task id") if id is not None else new_id()
        body = codec.encode(_object(payload), sort=given)
        extra = (
            self._extra(deadline, priority, to, headers, wait)
            if (wait or deadline is not None or to or headers or priority != "normal" or lineage.get() is not None)
            else ()
        )
        shard, item = self._prepare(capability, id, body, when(delay, at), priority, to, extra)
        # Who is to be told must be in the waiting room before the answer can be on its way.
        told = self._replies.expect(id) if wait else None
        try:
            verdict = await self._out[shard].put(item)
        except BaseException:
            if told:
                self._replies.forget(id, told)
            raise
        return self._verdict(id, verdict, given, told)

    def _verdict(self, id: str, verdict: str, given: bool, told: asyncio.Future[Answer] | None = None) -> Task:
        if told and verdict != "ok":
            # A record that was there before does not know this client yet.
            self._replies.forget(id, told)
            told = None
        if verdict == "conflict unusable":
            raise PayloadConflict(
                f"the key {self._keys.task(id)} of the record of task {id} holds something else; use a new id, or DEL it"
            )
        if verdict.startswith("conflict"):
            raise PayloadConflict(
                f"task {id} is known ({verdict.partition(' ')[2]}) with another payload; use a new id, or the same payload"
            )
        if verdict.startswith("refused"):
            raise refusal(verdict, f"task {id}", lineage.get())
        # An id that we made ourselves is known only when our own first try got through and its reply did not.
        return Task(self, id, verdict == "ok" or not given, told)

    async def enqueue_many(
        self,
        capability: str,
        payloads: Iterable[Mapping[str, Any]],
        *,
        ids: Iterable[str] | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        deadline: float | datetime | None = None,
        priority: str = "normal",
        to: str | None = None,
        headers: Mapping[str, str] | None = None,
        wait: bool = False,
    ) -> list[Task | PayloadConflict]:
        """Enqueue many tasks, 1,000 in a round trip; a verdict for each, in order.

        A verdict is a Task (``created`` False: the id was known), or the PayloadConflict that it would have raised.
        The payloads may come lazily; nothing is kept back when the server goes away in the middle.
        """
        check_name(capability, "capability")
        extra = self._extra(deadline, priority, to, headers, wait)
        due = when(delay, at)
        named = iter(ids) if ids is not None else None
        source = iter(payloads)
        out: list[Task | PayloadConflict] = []
        while True:
            items: list[list[_Out]] = [[] for _ in range(self._keys.shards)]
            order: list[tuple[str, int, asyncio.Future[Answer] | None]] = []
            size = 0
            for payload in islice(source, 1000):
                if named is None:
                    id = new_id()
                else:
                    try:
                        id = check_id(next(named), "task id")
                    except StopIteration:
                        raise InvalidPayload("fewer ids than payloads were given; give one id for each") from None
                body = codec.encode(_object(payload), sort=named is not None)
                shard, item = self._prepare(capability, id, body, due, priority, to, extra)
                items[shard].append(item)
                order.append((id, shard, self._replies.expect(id) if wait else None))
                size += len(body)
                if size > 4 * 1024 * 1024:
                    break
            if not order:
                return out
            verdicts = await asyncio.gather(
                *(self._send(shard, some) if some else _nothing() for shard, some in enumerate(items))
            )
            streams = [iter(some) for some in verdicts]
            for id, shard, told in order:
                try:
                    out.append(self._verdict(id, next(streams[shard]), named is not None, told))
                except PayloadConflict as conflict:
                    out.append(conflict)

    # -- wait

    async def call(self, capability: str, payload: Mapping[str, Any], timeout: float | None, **options: Any) -> Any:
        """Enqueue with this client on the list of waiters from the start, and wait for the result."""
        try:
            async with asyncio.timeout(timeout) as scope:
                task = await self.enqueue(capability, payload, wait=True, **options)
        except TimeoutError:
            raise ResultTimeout(
                f"no answer from the server at {self._store.where} within {timeout} s; whether the {capability!r} task is enqueued is unknown, "
                "with an id= it is safe to call again"
            ) from None
        left = None if timeout is None else max(0.0, (scope.when() or 0.0) - asyncio.get_running_loop().time())
        return await task.result(left)

    async def map(
        self,
        capability: str,
        payloads: Iterable[Mapping[str, Any]],
        *,
        limit: int,
        ordered: bool,
        priority: str = "normal",
    ) -> AsyncIterator[tuple[int, Any]]:
        """Enqueue ``payloads`` with at most ``limit`` unfinished at once; yield (index, result or TaskError)."""
        source = enumerate(payloads)
        running: dict[asyncio.Task[Any], int] = {}
        done: dict[int, Any] = {}
        turn = 0
        exhausted = False
        try:
            while True:
                room = limit - len(running) - (len(done) if ordered else 0)
                fresh = list(islice(source, max(0, min(room, 1000)))) if not exhausted else []
                exhausted = exhausted or (room > 0 and not fresh)
                if fresh:
                    tasks = await self.enqueue_many(
                        capability, (payload for _, payload in fresh), wait=True, priority=priority
                    )
                    for (index, _), task in zip(fresh, tasks, strict=True):
                        assert isinstance(task, Task)
                        running[asyncio.create_task(task.result())] = index
                if not running and exhausted:
                    return
                finished, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for waiter in finished:
                    error = waiter.exception()
                    if error is not None and not isinstance(error, TaskError):
                        raise error
                    done[running.pop(waiter)] = error if error is not None else waiter.result()
                if ordered:
                    while turn in done:
                        yield turn, done.pop(turn)
                        turn += 1
                else:
                    for index in list(done):
                        yield index, done.pop(index)
        finally:
            for waiter in running:
                waiter.cancel()

    # -- look, cancel, run again

    async def record(self, id: str) -> Record:
        """The record of ``id``. Raises TaskNotFound."""
        flat: list[str] = await self._store.command("HGETALL", self._keys.task(check_id(id, "task id")))
        if not flat:
            raise TaskNotFound(
                f"there is no task {id}: never enqueued in this mesh, or finished longer ago than its retention", id=id
            )
        return Record(id, dict(zip(flat[::2], flat[1::2], strict=True)))

    async def cancel(self, ids: Sequence[str], *, by: str = "client", retention: float = RETENTION) -> list[str]:
        """Cancel tasks; a word for each: 'ok', 'running <agent>', 'closed <state>' or 'missing'."""
        words = await self._by_shard("task_cancel", ids, [int(retention * 1000), by])
        for id, word in zip(ids, words, strict=True):
            if word.startswith("running "):
                await self._store.command(
                    "XADD", self._keys.control, "MAXLEN", "~", 1000, "*",
                    "type", "cancel", "task", id, "agent", word.partition(" ")[2], "by", by, "at", iso_now(),
                )  # fmt: skip
        return words

    async def retry(self, ids: Sequence[str]) -> list[str]:
        """Run finished tasks again with a fresh budget; a line for each: 'ok <id>', 'open <state>' or 'missing'."""
        out: dict[str, str] = {}
        for id in ids:
            shard = self._keys.shard_of(check_id(id, "task id"))
            out[id] = (await self._store.run("task_retry", [self._keys.prefix(shard)], [new_id(), id, "", ""]))[0]
        return [out[id] for id in ids]

    async def _by_shard(self, script: str, ids: Sequence[str], args: Sequence[Any]) -> list[str]:
        shards: dict[int, list[str]] = {}
        for id in ids:
            shards.setdefault(self._keys.shard_of(check_id(id, "task id")), []).append(id)
        words: dict[str, str] = {}
        for shard, some in shards.items():
            replies = await self._store.run(script, [self._keys.prefix(shard)], [*args, *some])
            words.update(zip(some, replies, strict=True))
        return [words[id] for id in ids]

    # -- for agents

    async def settle(
        self, shard: int, agent: str, streams: Sequence[str], items: Sequence[Sequence[Any]], link: Link
    ) -> list[str]:
        """Settle a batch of attempts in one script; items are (stream index, entry, id, attempt, verb, a, b, c)."""
        args: list[Any] = [agent, len(items)]
        for item in items:
            args += item
        verdicts: list[str] = await self._store.run("task_settle", [self._keys.prefix(shard), *streams], args, link)
        return verdicts

    async def progress(self, id: str, agent: str, attempt: int, value: Any) -> bool:
        """Record how far an attempt has come; False when the attempt is no longer the owner."""
        body = codec.encode(value, what="progress", limit=16 * 1024)
        reply: Reply = await self._store.run(
            "task_progress", [self._keys.prefix(self._keys.shard_of(id))], [id, agent, attempt, body]
        )
        return bool(reply == "ok")


async def _nothing() -> list[str]:
    return []


def _object(payload: Any) -> Any:
    if isinstance(payload, dict):
        return payload
    if isinstance(payload, Mapping):
        return dict(payload)
    raise InvalidPayload(f"the payload is a {type(payload).__name__}; expected a mapping of names to JSON values")
