"""Tasks in a list: unfinished ones by walking the streams and what is due, finished ones by a bounded scan of the records.

Read-only, and bounded whatever the size of the mesh. The list is a look, not a snapshot: a task that moves meanwhile may
be missing, or be shown where it was.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from streammesh.keys import GROUP, LANES, Keys, raw_tag
from streammesh.moments import iso
from streammesh.record import Record, State
from streammesh.status import Status, fields_of
from streammesh.store import Store

__all__ = ["Listed", "Listing"]

#: The fields of a listed record. Payload and result stay where they are: they may be large.
FIELDS = (
    "state", "capability", "attempt", "agent", "priority", "to", "enqueued_at", "started_at", "finished_at", "due", "reason",
    "error", "entry",
)  # fmt: skip
#: Keys that a scan for finished tasks looks at, at most.
SCANNED = 200_000
_STATES = frozenset(state.value for state in State)


@dataclass(frozen=True, slots=True)
class Listed:
    """Records, newest first. ``complete`` is False when the scan ended at its bound: there may be more finished ones."""

    records: tuple[Record, ...]
    complete: bool


class Listing:
    """Lists the tasks of one mesh."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._status = Status(store, keys)

    async def tasks(self, states: Collection[State], capability: str | None = None, limit: int = 50) -> Listed:
        """Up to ``limit`` tasks in one of ``states``, newest first."""
        found: dict[str, Record] = {}
        names = [capability] if capability else await self._status.names()
        if State.QUEUED in states or State.RUNNING in states:
            await self._unfinished(found, names, states, limit)
        if State.DELAYED in states:
            await self._delayed(found, limit)
        complete = True
        if any(state.final for state in states):
            complete = await self._scan(found, [state for state in states if state.final], capability, limit)
        kept = [
            one
            for one in found.values()
            if one.fields.get("state") in states and (not capability or one.capability == capability)
        ]
        kept.sort(key=lambda one: (one.fields.get("enqueued_at", ""), one.id), reverse=True)
        return Listed(tuple(kept[:limit]), complete)

    async def _unfinished(
        self, found: dict[str, Record], names: Sequence[str], states: Collection[State], limit: int
    ) -> None:
        shards = range(self._keys.shards)
        streams = [(name, self._keys.tasks(name, lane, n), n) for name in names for lane in LANES for n in shards]
        for shard in shards:
            owners = await self._store.command("ZRANGE", self._keys.inboxes(shard), 0, -1)
            streams += [("", self._keys.inbox(owner, shard), shard) for owner in owners]
        entries: list[tuple[str, str, int, str, list[str]]] = []
        if State.RUNNING in states:
            pending = await self._store.commands([("XPENDING", s, GROUP, "-", "+", limit) for _, s, _ in streams])
            held = [(one, p[0]) for one, reply in zip(streams, pending, strict=True) if _good(reply) for p in reply]
            replies = await self._store.commands([("XRANGE", one[1], entry, entry) for one, entry in held])
            entries += [(*one, *e) for (one, _), got in zip(held, replies, strict=True) if got for e in got]
        if State.QUEUED in states:
            groups = await self._store.commands([("XINFO", "GROUPS", s) for _, s, _ in streams])
            lasts = [fields_of(reply[0]).get("last-delivered-id", "0-0") if _good(reply) else "0-0" for reply in groups]
            replies = await self._store.commands(
                [
                    ("XREVRANGE", s, "+", f"({last}", "COUNT", limit)
                    for (_, s, _), last in zip(streams, lasts, strict=True)
                ]
            )
            entries += [(*one, *e) for one, reply in zip(streams, replies, strict=True) if _good(reply) for e in reply]
        # What waits without a record yet came by a bare XADD: the record is made when it is claimed.
        raw: dict[str, Record] = {}
        for name, stream, shard, entry, flat in entries:
            fields = fields_of(flat)
            if "type" in fields:
                continue
            id = fields.get("id") or f"{raw_tag(stream, shard)}-{entry}"
            at = fields.get("at") or iso(int(entry.partition("-")[0]))
            raw[id] = Record(
                id,
                {
                    "state": "queued",
                    "capability": name or fields.get("capability", ""),
                    "enqueued_at": at,
                    "entry": entry,
                },
            )
        await self._read(found, raw, raw)

    async def _delayed(self, found: dict[str, Record], limit: int) -> None:
        for shard in range(self._keys.shards):
            members = await self._store.command("ZRANGE", self._keys.due(shard), 0, limit - 1)
            await self._read(found, [m.partition(":")[2] for m in members if m.startswith("task:")], {})

    async def _scan(
        self, found: dict[str, Record], states: Collection[State], capability: str | None, limit: int
    ) -> bool:
        for shard in range(self._keys.shards):
            prefix = f"{self._keys.prefix(shard)}task:"
            cursor, looked = "0", 0
            while True:
                cursor, keys = await self._store.command("SCAN", cursor, "MATCH", f"{prefix}*", "COUNT", 1000)
                some: dict[str, Record] = {}
                await self._read(some, [key.removeprefix(prefix) for key in keys], {})
                found.update(
                    (id, one)
                    for id, one in some.items()
                    if one.fields.get("state") in states and (not capability or one.capability == capability)
                )
                if len(found) > 4 * limit + 1000:
                    newest = sorted(found.values(), key=lambda one: one.fields.get("enqueued_at", ""))[-limit:]
                    kept = {one.id for one in newest} | {id for id, one in found.items() if not one.state.final}
                    for id in found.keys() - kept:
                        del found[id]
                looked += 1000
                if cursor == "0":
                    break
                if looked >= SCANNED:
                    return False
        return True

    async def _read(self, found: dict[str, Record], ids: Iterable[str], instead: dict[str, Record]) -> None:
        listed = list(ids)
        for start in range(0, len(listed), 1000):
            some = listed[start : start + 1000]
            replies = await self._store.commands([("HMGET", self._keys.task(id), *FIELDS) for id in some])
            for id, reply in zip(some, replies, strict=True):
                if _good(reply) and reply[0] in _STATES:
                    found[id] = Record(id, {name: text for name, text in zip(FIELDS, reply, strict=True) if text})
                elif id in instead:
                    found[id] = instead[id]


def _good(reply: Any) -> bool:
    return bool(reply) and not isinstance(reply, Exception)
