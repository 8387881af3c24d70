"""Schedules: workflows and tasks that are started at set times, each occurrence once, by whichever agent is alive.

A schedule is a record in the shard of its name, and a member of what is due there. Every agent watches what is due. The one that
finds a schedule reckons in Python which occurrences it is time for, and one script starts them and sets the next time, if
nobody else has done so meanwhile. What is started has an id that is made of the name and the time, `<name>:20261122T070000Z`: a
crash at any point, or a second agent, cannot start an occurrence twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from zlib import crc32

from streammesh import codec
from streammesh.errors import InvalidSchedule, MeshError, ScheduleNotFound
from streammesh.journal import KEPT
from streammesh.keys import Keys, check_name
from streammesh.record import new_id
from streammesh.registry import AgentInfo
from streammesh.rhythm import Rhythm, zone_of
from streammesh.store import Store

__all__ = ["Schedule", "ScheduleRecord", "Schedules"]

#: How late, in seconds, an occurrence may be and is still in time.
GRACE = 60.0
#: The most missed occurrences that are looked at, and that `missed="all"` starts.
LOOKED = 1000
CAUGHT_UP = 100

OVERLAPS = ("skip", "allow", "replace")
MISSED = ("latest", "skip", "all")


@dataclass(frozen=True, slots=True)
class ScheduleRecord:
    """A schedule as its hash says: every field as text."""

    name: str
    fields: Mapping[str, str]

    @property
    def state(self) -> str:
        """active, paused, or ended: no occurrence is left."""
        return self.fields.get("state", "")

    @property
    def kind(self) -> str:
        """What is started: 'workflow' or 'task'."""
        return "workflow" if "workflow" in self.fields else "task"

    @property
    def target(self) -> str:
        """The workflow or capability."""
        return self.fields.get(self.kind, "")

    @property
    def rhythm(self) -> Rhythm:
        f = self.fields
        bounds = [_ms(f[name]) if name in f else None for name in ("start", "end")]
        return Rhythm(
            f.get("cron", ""), int(f.get("every", 0)) * 1000, f.get("tz", "UTC"), int(f.get("anchor", 0)), *bounds
        )

    @property
    def input(self) -> Any:
        return codec.decode(self.fields.get("input", "{}"))

    @property
    def next_at(self) -> datetime | None:
        """The next occurrence; None when it is paused or has ended."""
        return datetime.fromtimestamp(int(self.fields["next"]) / 1000, UTC) if "next" in self.fields else None

    @property
    def last(self) -> str:
        """The id of what was started last; '' when nothing was."""
        return self.fields.get("last", "")

    @property
    def fired(self) -> int:
        """How many were started."""
        return int(self.fields.get("fired", 0))

    @property
    def skipped(self) -> int:
        """How many were not started because the one before had not ended."""
        return int(self.fields.get("skipped", 0))

    @property
    def missed(self) -> int:
        """How many were left out because nobody was there in time (a long absence is counted up to 1,000)."""
        return int(self.fields.get("missed_count", 0))


class Schedule:
    """A handle on one schedule; ``verdict`` says what the call that returned it did: created, changed, unchanged, or '' for a mere look."""

    __slots__ = ("_schedules", "name", "verdict")

    def __init__(self, schedules: Schedules, name: str, verdict: str = "") -> None:
        self._schedules = schedules
        self.name = name
        self.verdict = verdict

    async def record(self) -> ScheduleRecord:
        """What is known of it. Raises ScheduleNotFound."""
        return (await self._schedules.read(self.name))[1]

    async def next(self, count: int = 1) -> list[datetime]:
        """Up to ``count`` occurrences from now on, in its time zone; also of a paused one. Raises ScheduleNotFound."""
        return await self._schedules.next(self.name, count)

    async def pause(self, *, by: str = "client") -> str:
        """Start nothing until `resume`; returns 'ok' or 'unchanged <state>'. Raises ScheduleNotFound."""
        return await self._schedules.act(self.name, "pause", by)

    async def resume(self, *, by: str = "client") -> str:
        """End a pause: the next occurrence is the first from now on. Returns 'ok' or 'unchanged <state>'. Raises ScheduleNotFound."""
        return await self._schedules.act(self.name, "resume", by)

    async def run_now(self, *, by: str = "client") -> str:
        """Start one at once, whatever is at work, also while it is paused; returns the id of the run or task. Raises ScheduleNotFound."""
        return await self._schedules.run_now(self.name, by)

    async def remove(self, *, by: str = "client") -> bool:
        """Take it away; what it has started goes on. False when it was gone already."""
        return await self._schedules.remove(self.name, by)

    def __repr__(self) -> str:
        return f"Schedule({self.name!r})"


class Schedules:
    """The room of schedules in one mesh."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys

    def named(self, name: str) -> Schedule:
        """A handle on a schedule by its name; whether it is there shows when it is used."""
        return Schedule(self, check_name(name, "schedule"))

    async def put(
        self,
        name: str,
        *,
        workflow: str | None,
        task: str | None,
        cron: str | None,
        every: float | timedelta | None,
        tz: str,
        input: Mapping[str, Any] | None,
        version: int,
        overlap: str,
        missed: str,
        start: datetime | None,
        end: datetime | None,
        jitter: float,
    ) -> Schedule:
        """Make a schedule, or change it; see `Mesh.schedule`."""
        check_name(name, "schedule")
        if (workflow is None) == (task is None):
            raise InvalidSchedule("a schedule starts either a workflow= or a task=; give one of them")
        for option, value, allowed in (("overlap", overlap, OVERLAPS), ("missed", missed, MISSED)):
            if value not in allowed:
                raise InvalidSchedule(f"{option}={value!r} is not known; expected one of {', '.join(allowed)}")
        if not 0 <= jitter <= 86_400:
            raise InvalidSchedule(f"jitter={jitter!r} is not usable: expected 0 to 86400 seconds")
        now, _ = await self._look(name)
        seconds = every.total_seconds() if isinstance(every, timedelta) else float(every or 0)
        rhythm = Rhythm(
            cron or "", round(seconds * 1000), tz, now // 1000 * 1000, _given(start, "start"), _given(end, "end")
        )
        rhythm.check()
        definition: dict[str, Any] = {
            "workflow": check_name(workflow, "workflow") if workflow is not None else "",
            "version": version if workflow is not None else "",
            "task": check_name(task, "capability") if task is not None else "",
            "input": codec.encode(dict(input or {}), sort=True),
            "cron": cron or "",
            "every": rhythm.every // 1000 or "",
            "tz": tz,
            "overlap": overlap,
            "missed": missed,
            "start": "" if rhythm.start is None else _iso(rhythm.start),
            "end": "" if rhythm.end is None else _iso(rhythm.end),
            "jitter": f"{jitter:g}" if jitter else "",
        }
        first = rhythm.first_after(now)
        word: str = await self._store.run(
            "schedule_put",
            self._shard(name),
            [
                name,
                *_timed(name, first, jitter),
                rhythm.anchor,
                *(part for pair in definition.items() for part in pair),
            ],
        )
        return Schedule(self, name, word)

    async def read(self, name: str) -> tuple[int, ScheduleRecord]:
        """The server's clock in ms, and the record. Raises ScheduleNotFound."""
        now, fields = await self._look(check_name(name, "schedule"))
        if not fields:
            raise ScheduleNotFound(f"there is no schedule {name}: never made in this mesh, or removed")
        return now, ScheduleRecord(name, fields)

    async def all(self) -> list[ScheduleRecord]:
        """Every schedule, by name. One that is removed meanwhile may be missing."""
        shards = range(self._keys.shards)
        replies = await self._store.commands([("SMEMBERS", self._keys.schedules(shard)) for shard in shards])
        names = sorted(str(name) for reply in replies if not isinstance(reply, Exception) for name in reply)
        flats = await self._store.commands([("HGETALL", self._keys.schedule(name)) for name in names])
        return [
            ScheduleRecord(name, dict(zip(flat[::2], flat[1::2], strict=True)))
            for name, flat in zip(names, flats, strict=True)
            if flat and not isinstance(flat, Exception)
        ]

    async def unserved(self, agents: Iterable[AgentInfo]) -> list[ScheduleRecord]:
        """Active schedules whose workflow, in its version, or whose capability none of ``agents`` has."""
        known: set[tuple[str, str]] = set()
        for agent in agents:
            known.update(("task", name) for name in agent.capabilities)
            known.update(("workflow", name) for name in agent.fields.get("workflows", "").split())
        return [one for one in await self.all() if one.state == "active" and (one.kind, _versioned(one)) not in known]

    async def next(self, name: str, count: int) -> list[datetime]:
        """Up to ``count`` occurrences from now on, in the schedule's time zone. Raises ScheduleNotFound."""
        now, record = await self.read(name)
        zone = zone_of(record.rhythm.tz)
        since = int(record.fields["next"]) - 1 if "next" in record.fields else now
        return [
            datetime.fromtimestamp(at / 1000, UTC).astimezone(zone) for at in islice(record.rhythm.after(since), count)
        ]

    async def act(self, name: str, verb: str, by: str) -> str:
        """pause or resume; 'ok' or 'unchanged <state>'. Raises ScheduleNotFound."""
        while True:
            now, record = await self.read(name)
            first = record.rhythm.first_after(now) if verb == "resume" else None
            args = [name, verb, by, record.fields.get("revision", ""), *_timed(name, first, _jitter(record))]
            word: str = await self._store.run("schedule_act", self._shard(name), args)
            if word != "stale":
                return self._found(name, word)

    async def run_now(self, name: str, by: str) -> str:
        """Start one at once; returns its id. Raises ScheduleNotFound."""
        now, record = await self.read(name)
        id = f"{name}:{_stamp(now)}.{new_id()[-6:]}"
        word: str = await self._store.run("schedule_act", self._shard(name), [name, "run", by, "", id, _iso(now)])
        if word == "unusable":
            raise self._unusable(record)
        self._found(name, word)
        return id

    async def remove(self, name: str, by: str) -> bool:
        """Take a schedule away; False when it was gone already."""
        word: str = await self._store.run("schedule_act", self._shard(check_name(name, "schedule")), [name, "remove", by, ""])  # fmt: skip
        return word == "ok"

    # -- for agents

    async def fire(self, name: str) -> float | None:
        """Start the occurrences whose time has come; returns seconds until the next one is due, None when there is none.

        Any number of agents may do so at once: one of them does it, for the others nothing changes.
        """
        now, fields = await self._look(name)
        record = ScheduleRecord(name, fields)
        starts: list[Any] = []
        left_out, following = 0, None
        if "next" in fields:
            expected, rhythm, jitter = int(fields["next"]), record.rhythm, _jitter(record)
            if _due(name, expected, jitter) > now:
                return (_due(name, expected, jitter) - now) / 1000
            due = [at for at in rhythm.newest(expected, now, LOOKED) if _due(name, at, jitter) <= now] or [expected]
            following = rhythm.first_after(due[-1])
            wanted = due[-CAUGHT_UP:] if fields.get("missed") == "all" else due[-1:]
            if fields.get("missed") == "skip" and now > _due(name, due[-1], jitter) + GRACE * 1000:
                wanted = []
            left_out = len(due) - len(wanted)
            starts = [word for at in wanted for word in (f"{name}:{_stamp(at)}", _iso(at))]
        word: str = await self._store.run(
            "schedule_fire",
            self._shard(name),
            [
                name,
                fields.get("revision", ""),
                fields.get("next", ""),
                *_timed(name, following, _jitter(record)),
                int(KEPT * 1000),
                left_out,
                *starts,
            ],
        )
        if word == "unusable":
            raise self._unusable(record)
        return None if following is None else max(0.0, (_due(name, following, _jitter(record)) - now) / 1000)

    # -- the rest

    def _shard(self, name: str) -> list[str]:
        return [self._keys.prefix(self._keys.shard_of(name))]

    async def _look(self, name: str) -> tuple[int, dict[str, str]]:
        now, flat = await self._store.run("schedule_read", self._shard(name), [name])
        return int(now), dict(zip(flat[::2], flat[1::2], strict=True))

    def _found(self, name: str, word: str) -> str:
        if word == "missing":
            raise ScheduleNotFound(f"there is no schedule {name}: it was removed meanwhile")
        return word

    def _unusable(self, record: ScheduleRecord) -> MeshError:
        key = self._keys.tasks(record.target, shard=self._keys.shard_of(record.name))
        return MeshError(
            f"schedule {record.name} can start nothing: the key {key} is not a stream; look at it, and DEL it"
        )


def _timed(name: str, at: int | None, jitter: float) -> tuple[str | int, str | int]:
    """An occurrence as scripts want it, and when it is due."""
    return ("", "") if at is None else (at, _due(name, at, jitter))


def _due(name: str, at: int, jitter: float) -> int:
    """When the occurrence ``at`` is to be started: the same for everybody who asks."""
    return at + (crc32(f"{name}:{at}".encode()) % int(jitter * 1000) if jitter else 0)


def _versioned(record: ScheduleRecord) -> str:
    version = record.fields.get("version", "1")
    return record.target if version == "1" else f"{record.target}@{version}"


def _jitter(record: ScheduleRecord) -> float:
    return float(record.fields.get("jitter", 0))


def _given(moment: Any, what: str) -> int | None:
    if moment is None:
        return None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise InvalidSchedule(f"{what}={moment!r} is not usable: expected a datetime with a time zone")
    return int(moment.timestamp()) * 1000


def _ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1000


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms // 1000, UTC).isoformat().replace("+00:00", "Z")


def _stamp(ms: int) -> str:
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
