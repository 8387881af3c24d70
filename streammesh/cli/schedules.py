"""`schedule`: what is started at set times: add it, look when it comes next, pause it, start one by hand, remove it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from streammesh.cli.endings import Missing
from streammesh.cli.output import Output
from streammesh.cli.parameters import DURATION, MOMENT, payload_of
from streammesh.cli.session import Noun, command

if TYPE_CHECKING:
    from streammesh.mesh import Mesh
    from streammesh.schedules import Schedule, ScheduleRecord

__all__ = ["schedule_command"]

HEADS = ("SCHEDULE", "STATE", "STARTS", "WHEN", "NEXT", "LAST", "FIRED", "")
FIELDS = "[name=text | name:=json | name=@file]..."


@click.group("schedule", cls=Noun)
def schedule_command() -> None:
    """Schedules: workflows and tasks that are started at set times."""


@command(
    schedule_command,
    unsafe=False,
    epilog="Example: streammesh schedule add morning folder=docs -w digest --cron '0 7 * * mon-fri' --tz Europe/Berlin",
)
@click.argument("name")
@click.argument("fields", nargs=-1, metavar=FIELDS)
@click.option("-w", "--workflow", metavar="NAME", help="Start a run of this workflow each time.")
@click.option("-t", "--task", metavar="CAPABILITY", help="Enqueue a task of this capability each time.")
@click.option("--cron", metavar="EXPRESSION", help="Minute, hour, day, month, weekday: '0 7 * * mon-fri'; or @daily.")
@click.option(
    "--every", type=DURATION, metavar="DURATION", help="An interval, from --start or from now on: 90s 15m 2h."
)
@click.option("--tz", default="UTC", show_default=True, metavar="ZONE", help="The time zone of --cron: Europe/Berlin.")
@click.option("-p", "--payload", metavar="JSON|@FILE|-", help="What each one gets, an object; fields are added to it.")
@click.option(
    "--version", type=click.IntRange(1), default=1, metavar="N", help="The version of the workflow (default 1)."
)
@click.option(
    "--overlap",
    type=click.Choice(["skip", "allow", "replace"]),
    default="skip",
    help="While the one before has not ended: skip this one (the default), allow both, or end the old one.",
)
@click.option(
    "--missed",
    type=click.Choice(["latest", "skip", "all"]),
    default="latest",
    help="Those that nobody could start in time: the latest of them (the default), none, or all (100 at most).",
)
@click.option("--start", type=MOMENT, metavar="ISO", help="None before that point in time.")
@click.option("--end", type=MOMENT, metavar="ISO", help="None after that point in time.")
@click.option("--jitter", type=DURATION, default=0.0, metavar="DURATION", help="Each starts up to so much later.")
async def add(
    mesh: Mesh, out: Output, name: str, fields: tuple[str, ...], payload: str | None, **options: Any
) -> None:  # fmt: skip
    """Add a schedule, or change the one of that name."""
    schedule = await mesh.schedule(name, input=payload_of(payload, fields), **options)
    record = await schedule.record()
    if out.json:
        out.object(_json(record) | {"verdict": schedule.verdict})
        return
    out.line(name)
    out.note(f"{schedule.verdict}; " + (f"next: {_both(record, record.next_at)}" if record.next_at else f"it is {record.state}"))  # fmt: skip
    if not out.quiet and record in await mesh.schedules.unserved(await mesh.agents()):
        out.warn(f"no live agent has the {record.kind} {record.target}; what is started waits until one does")


@command(schedule_command, name="ls")
async def ls(mesh: Mesh, out: Output) -> None:
    """List schedules by name."""
    records = await mesh.schedules.all()
    if out.json:
        out.lines(_json(record) for record in records)
    elif out.quiet:
        for record in records:
            out.line(record.name)
    elif records:
        now = await mesh.status.now_ms()
        unserved = await mesh.schedules.unserved(await mesh.agents())
        out.table(HEADS, [_row(out, one, now, one in unserved) for one in records], right=["FIRED"])
    else:
        out.note("no schedules; add one: streammesh schedule add NAME -w WORKFLOW --cron '0 7 * * *'")


def _row(out: Output, record: ScheduleRecord, now: int, unserved: bool) -> tuple[str, ...]:
    remarks = [f"paused by {record.fields.get('paused')}"] if record.state == "paused" else []
    remarks += [f"{record.skipped} skipped"] if record.skipped else []
    remarks += [f"{record.missed} missed"] if record.missed else []
    about = f"! no live agent has {record.target}" if unserved else ", ".join(remarks)
    return (
        record.name, record.state, f"{record.kind} {record.target}", _when(record),
        out.moment(record.fields.get("next_at"), now) or "-", out.moment(record.fields.get("last_at"), now) or "-",
        str(record.fired), about,
    )  # fmt: skip


@command(schedule_command)
@click.argument("name")
async def show(mesh: Mesh, out: Output, name: str) -> None:
    """One schedule: what it starts, when, and what it did."""
    schedule = mesh.schedules.named(name)
    record = await schedule.record()
    if out.json:
        out.object(_json(record))
        return
    if out.quiet:
        out.line(record.state)
        return
    f = record.fields
    nobody = record in await mesh.schedules.unserved(await mesh.agents())
    version = f" version {f['version']}" if f.get("version", "1") != "1" else ""
    out.pairs(
        [
            ("name", record.name), ("state", record.state), ("paused by", f.get("paused")),
            ("starts", f"{record.kind} {record.target}{version}"), ("", "! no live agent has it" if nobody else ""),
            ("input", f.get("input")), ("when", _when(record)), ("from", f.get("start")), ("until", f.get("end")),
            ("jitter", f"up to {f['jitter']} s" if "jitter" in f else ""), ("overlap", f.get("overlap")),
            ("missed", f.get("missed")), ("next", _both(record, record.next_at) if record.next_at else ""),
            ("last", f"{record.last} at {f['last_at']}" if record.last else ""),
            ("so far", f"{record.fired} started, {record.skipped} skipped, {record.missed} missed"),
        ]
    )  # fmt: skip


@command(schedule_command, name="next")
@click.argument("name")
@click.option("-n", "count", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many.")
async def next_(mesh: Mesh, out: Output, name: str, count: int) -> None:
    """When a schedule comes next, in its time zone and in UTC."""
    schedule = mesh.schedules.named(name)
    times = await schedule.next(count)
    record = await schedule.record()
    if out.json:
        out.lines({"at": at.isoformat(), "utc": _utc(at), "id": f"{name}:{at.astimezone(UTC):%Y%m%dT%H%M%SZ}"} for at in times)  # fmt: skip
        return
    now = await mesh.status.now_ms()
    rows = [(_local(at), _utc(at), out.moment(at.timestamp() * 1000, now) if out.tty else "") for at in times]
    out.table((f"IN {record.rhythm.tz}", "IN UTC", ""), rows)
    if record.state != "active":
        out.note(f"{name} is {record.state}" + (": it starts nothing until it is resumed" if times else ""))


_NAMES = click.argument("names", metavar="NAME...", nargs=-1, required=True)
_BY = click.option("--by", default="cli", metavar="WHO", help="Who asks; `schedule show` and the events tell it.")


async def _each(mesh: Mesh, out: Output, names: tuple[str, ...], act: Callable[[Schedule], Awaitable[str]]) -> None:
    """One line for each; ScheduleNotFound at the first that is not there."""
    for name in names:
        verdict, _, state = (await act(mesh.schedules.named(name))).partition(" ")
        if out.json:
            out.lines([{"name": name, "verdict": verdict, **({"state": state} if state else {})}])
        else:
            out.line(name)
        if verdict == "unchanged":
            out.note(f"schedule {name} is {state}: nothing was changed")


@command(schedule_command)
@_NAMES
@_BY
async def pause(mesh: Mesh, out: Output, names: tuple[str, ...], by: str) -> None:
    """Start nothing until resumed; what is started already goes on."""
    await _each(mesh, out, names, lambda schedule: schedule.pause(by=by))


@command(schedule_command)
@_NAMES
@_BY
async def resume(mesh: Mesh, out: Output, names: tuple[str, ...], by: str) -> None:
    """End a pause; what would have been started meanwhile is not made up for."""
    await _each(mesh, out, names, lambda schedule: schedule.resume(by=by))


@command(schedule_command)
@_NAMES
@_BY
async def rm(mesh: Mesh, out: Output, names: tuple[str, ...], by: str) -> None:
    """Remove schedules; what they have started goes on."""
    for name in names:
        if not await mesh.schedules.named(name).remove(by=by):
            raise Missing(f"there is no schedule {name}")
        out.lines([{"name": name, "verdict": "ok"}]) if out.json else out.line(name)


@command(schedule_command, name="run-now", unsafe=False, epilog="What is started is the `last` of the schedule then: --overlap looks at it.")  # fmt: skip
@click.argument("name")
@_BY
async def run_now(mesh: Mesh, out: Output, name: str, by: str) -> None:
    """Start one at once, whatever is at work; prints the id of the run or task."""
    schedule = mesh.schedules.named(name)
    id = await schedule.run_now(by=by)
    if out.json:
        out.object({"name": name, "id": id, "kind": (await schedule.record()).kind})
    else:
        out.line(id)


def _when(record: ScheduleRecord) -> str:
    from streammesh.moments import duration

    if "cron" in record.fields:
        return f"{record.fields['cron']} ({record.rhythm.tz})"
    return f"every {duration(record.rhythm.every / 1000)}"


def _both(record: ScheduleRecord, at: datetime) -> str:
    """A point in time in the schedule's zone, and in UTC where that is another one."""
    from zoneinfo import ZoneInfo

    tz = record.rhythm.tz
    return _utc(at) if tz == "UTC" else f"{_local(at.astimezone(ZoneInfo(tz)))} ({_utc(at)})"


def _local(at: datetime) -> str:
    return at.strftime("%a %Y-%m-%d %H:%M:%S %z")


def _utc(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _json(record: ScheduleRecord) -> dict[str, Any]:
    f = record.fields
    return {
        "name": record.name, "state": record.state, record.kind: record.target, "input": record.input,
        "cron": f.get("cron"), "every_seconds": int(f["every"]) if "every" in f else None, "tz": record.rhythm.tz,
        "overlap": f.get("overlap"), "missed": f.get("missed"), "start": f.get("start"), "end": f.get("end"),
        "jitter_seconds": float(f.get("jitter", 0)), "next": _utc(record.next_at) if record.next_at else None,
        "last": record.last or None, "last_at": f.get("last_at"), "fired": record.fired, "skipped": record.skipped,
        "missed_count": record.missed,
    }  # fmt: skip
