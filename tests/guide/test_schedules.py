"""A schedule starts a workflow or a task at set times: each occurrence once, whoever is alive, whatever the clocks do."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from streammesh import Agent, Mesh, Run, TaskContext
from streammesh.errors import InvalidSchedule, ScheduleNotFound
from streammesh.movable import MeshClock
from streammesh.schedules import Schedule
from tests.eventually import eventually
from tests.guide.conftest import Serve
from tests.guide.library import library


async def fired(schedule: Schedule, count: int = 1) -> str:
    """Wait until so many were started; the id of the last."""

    async def enough() -> str:
        record = await schedule.record()
        return record.last if record.fired >= count else ""

    return await eventually(enough, what=f"{schedule.name} was fired")


async def test_a_workflow_is_started_at_set_times(mesh: Mesh, serve: Serve) -> None:
    agent = library()

    @agent.workflow("tick")
    async def tick(run: Run, shelf: str) -> str:
        return f"{shelf} is in order"

    await serve(agent)
    schedule = await mesh.schedule("tidy", workflow="tick", every=1, input={"shelf": "A"})
    first = datetime.fromisoformat((await schedule.record()).fields["next_at"])
    id = await fired(schedule)
    assert id == f"tidy:{first:%Y%m%dT%H%M%SZ}"
    assert await mesh.run(id).result(10) == "A is in order"
    await fired(schedule, 2)
    assert await schedule.remove()


async def test_a_task_is_enqueued_and_knows_its_occurrence(mesh: Mesh, serve: Serve) -> None:
    agent = library()

    @agent.capability("report")
    async def report(ctx: TaskContext, of: str) -> list[str]:
        return [of, ctx.headers["schedule"], ctx.headers["occurrence"]]

    await serve(agent)
    schedule = await mesh.schedule("daily", task="report", every=1, input={"of": "loans"})
    id = await fired(schedule)
    await schedule.remove()
    of, name, occurrence = await mesh.task(id).result(10)
    assert (of, name) == ("loans", "daily")
    assert id == "daily:" + occurrence.replace("-", "").replace(":", "")


async def test_the_next_times_are_told_in_its_own_zone(mesh: Mesh) -> None:
    schedule = await mesh.schedule("weekdays", workflow="digest", cron="0 7 * * mon-fri", tz="Europe/Berlin")
    times = await schedule.next(5)
    assert all((at.hour, at.minute) == (7, 0) and at.weekday() < 5 for at in times)
    assert str(times[0].tzinfo) == "Europe/Berlin"
    assert (await schedule.record()).next_at == times[0]
    await schedule.remove()


async def test_the_same_name_again_changes_it_and_says_so(mesh: Mesh) -> None:
    first = await mesh.schedule("nightly", workflow="digest", cron="0 3 * * *", input={"folder": "docs"})
    again = await mesh.schedule("nightly", workflow="digest", cron="0 3 * * *", input={"folder": "docs"})
    other = await mesh.schedule("nightly", workflow="digest", cron="0 4 * * *")
    assert [first.verdict, again.verdict, other.verdict] == ["created", "unchanged", "changed"]
    assert (await other.next())[0].hour == 4
    assert (await other.record()).input == {}
    assert [one.name for one in await mesh.schedules.all()] == ["nightly"]
    await other.remove()
    assert await mesh.schedules.all() == []


async def test_unchanged_means_that_an_interval_goes_on_counting(mesh: Mesh) -> None:
    schedule = await mesh.schedule("hourly", workflow="digest", every=timedelta(hours=1))
    next_at = (await schedule.record()).next_at
    assert (await mesh.schedule("hourly", workflow="digest", every=3600)).verdict == "unchanged"
    assert (await schedule.record()).next_at == next_at
    await schedule.remove()


async def test_nothing_is_started_during_a_pause_nor_made_up_for(mesh: Mesh) -> None:
    schedule = await mesh.schedule("nightly", workflow="digest", every=1)
    assert await schedule.pause(by="ada") == "ok"
    assert await schedule.pause() == "unchanged paused"
    record = await schedule.record()
    assert (record.state, record.fields["paused"], record.next_at) == ("paused", "ada", None)
    assert await mesh.schedules.fire("nightly") is None
    # A change does not end the pause.
    await mesh.schedule("nightly", workflow="digest", every=3600)
    assert (await schedule.record()).state == "paused"
    assert await schedule.resume() == "ok"
    record = await schedule.record()
    assert (record.state, record.fired) == ("active", 0)
    assert record.next_at is not None
    assert record.next_at > datetime.now(UTC)
    await schedule.remove()


async def test_one_can_be_started_by_hand_also_during_a_pause(mesh: Mesh, serve: Serve) -> None:
    await serve(library())
    schedule = await mesh.schedule("doubling", task="double", every=3600, input={"n": 4})
    await schedule.pause()
    id = await schedule.run_now(by="ada")
    assert id.startswith("doubling:")
    assert await mesh.task(id).result(10) == 8
    await schedule.remove()


async def test_a_schedule_that_is_not_there_is_said_to_be_so(mesh: Mesh) -> None:
    schedule = mesh.schedules.named("nowhere")
    for act in (schedule.pause, schedule.resume, schedule.run_now, schedule.record, schedule.next):
        with pytest.raises(ScheduleNotFound, match="nowhere"):
            await act()
    assert await schedule.remove() is False


async def test_what_cannot_work_is_refused_before_it_is_written(mesh: Mesh) -> None:
    for options, says in (
        ({"cron": "61 * * * *"}, "Bad minute"),
        ({"cron": "0 7 * * *", "tz": "Mars/Olympus"}, "no time zone"),
        ({"every": 1, "overlap": "hope"}, "skip, allow, replace"),
        ({"every": 1, "missed": "hope"}, "latest, skip, all"),
        ({"every": 1, "task": "double"}, "either a workflow= or a task="),
        ({"every": 1, "start": datetime(2027, 1, 1)}, "time zone"),  # noqa: DTZ001 (that is the flaw)
        ({"every": 1, "jitter": -1}, "jitter"),
        ({}, "either cron= or every="),
    ):
        with pytest.raises(InvalidSchedule, match=says):
            await mesh.schedule("bad", workflow="digest", **options)
    assert await mesh.schedules.all() == []


async def test_many_that_fire_at_once_start_one(mesh: Mesh) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    schedule = await mesh.schedule("once", workflow="digest", every=60, start=soon, end=soon)

    async def is_due() -> bool:
        await asyncio.gather(*(mesh.schedules.fire("once") for _ in range(8)))
        return (await schedule.record()).fired > 0

    await eventually(is_due, what="it is due")
    record = await schedule.record()
    assert (record.fired, record.state) == (1, "ended")
    assert await mesh.run(record.last).history() != []
    await mesh.run(record.last).terminate()
    await schedule.remove()


# -- with a clock that is moved


def calendar() -> tuple[Agent, list[str]]:
    """An agent with a workflow that notes which runs there were."""
    agent, seen = library(), list[str]()

    @agent.workflow("note")
    async def note(run: Run) -> str:
        seen.append(run.id)
        return run.id

    @agent.workflow("wait")
    async def wait(run: Run) -> None:
        seen.append(run.id)
        await run.signal("never")

    return agent, seen


async def clear(mesh: Mesh, schedule: Schedule, seen: list[str]) -> None:
    """Nothing is left: neither the schedule nor runs of it that wait."""
    await schedule.remove()
    for id in seen:
        await mesh.run(id).terminate()


def changes(tz: str, after: datetime) -> list[datetime]:
    """The next two days in ``tz`` that are not 24 hours long, each as its first moment."""
    day = after.astimezone(ZoneInfo(tz)).replace(hour=0, minute=0, second=0, microsecond=0)
    found: list[datetime] = []
    while len(found) < 2:
        following = day + timedelta(days=1)
        if following.utcoffset() != day.utcoffset():
            found.append(day)
        day = following
    return found


@pytest.mark.parametrize(("tz", "hour"), [("Europe/Berlin", 2), ("America/New_York", 1), ("America/New_York", 2)])
async def test_it_comes_once_a_day_when_the_clocks_change(
    mesh: Mesh, mesh_clock: MeshClock, serve: Serve, tz: str, hour: int
) -> None:
    agent, seen = calendar()
    for day in changes(tz, await mesh_clock.now()):
        await mesh_clock.jump(day - timedelta(hours=12) - await mesh_clock.now())
        working = await serve(agent) if not seen else ""
        schedule = await mesh.schedule(f"at-{hour}", workflow="note", cron=f"30 {hour} * * *", tz=tz)
        before = len(seen)
        await mesh_clock.advance(hours=72)
        local = [
            datetime.strptime(id.partition(":")[2], "%Y%m%dT%H%M%S%z").astimezone(ZoneInfo(tz)) for id in seen[before:]
        ]
        assert [at.date() for at in local] == [(day + timedelta(days=n)).date() for n in range(3)], working
        assert all((at.hour, at.minute) in ((hour, 30), (hour + 1, 0)) for at in local)
        await schedule.remove()


@pytest.mark.parametrize(
    ("policy", "started", "missed"), [("latest", 2, 4), ("skip", 1, 5), ("all", 6, 0)], ids=["latest", "skip", "all"]
)
async def test_what_nobody_could_start_in_time(
    mesh: Mesh, mesh_clock: MeshClock, serve: Serve, policy: str, started: int, missed: int
) -> None:
    agent, seen = calendar()
    schedule = await mesh.schedule("hourly", workflow="note", every=3600, missed=policy, overlap="allow")
    first = (await schedule.record()).next_at
    assert first is not None
    # Five come while nobody is there, and the last of them is long past.
    await mesh_clock.jump(first + timedelta(hours=4, minutes=30) - await mesh_clock.now())
    await serve(agent)

    async def looked() -> bool:
        record = await schedule.record()
        return record.next_at == first + timedelta(hours=5)

    await eventually(looked, what="an agent has looked")
    await mesh_clock.advance(hours=1)
    record = await schedule.record()
    assert (len(seen), record.fired, record.missed) == (started, started, missed)
    await schedule.remove()


@pytest.mark.parametrize(
    ("policy", "started", "skipped", "ended"), [("skip", 1, 2, 0), ("allow", 3, 0, 0), ("replace", 3, 0, 2)]
)
async def test_when_the_one_before_has_not_ended(
    mesh: Mesh, mesh_clock: MeshClock, serve: Serve, policy: str, started: int, skipped: int, ended: int
) -> None:
    agent, seen = calendar()
    await serve(agent)
    schedule = await mesh.schedule("hourly", workflow="wait", every=3600, overlap=policy)
    await mesh_clock.advance(hours=3, minutes=1)
    record = await schedule.record()
    states = [(await mesh.run(id).head()).state for id in seen]
    assert (record.fired, record.skipped, states.count("cancelled")) == (started, skipped, ended)
    await clear(mesh, schedule, seen)


async def test_each_may_start_a_little_later_the_same_for_everybody(
    mesh: Mesh, mesh_clock: MeshClock, serve: Serve
) -> None:
    agent, seen = calendar()
    await serve(agent)
    schedule = await mesh.schedule("spread", workflow="note", every=3600, jitter=600)
    await mesh_clock.advance(hours=4)
    late = []
    for id in seen:
        begun = datetime.fromisoformat((await mesh.run(id).head()).fields["started_at"])
        late.append((begun - datetime.strptime(id.partition(":")[2], "%Y%m%dT%H%M%S%z")).total_seconds())
    assert len(late) in (3, 4)
    assert all(0 <= one < 605 for one in late)
    assert max(late) > 5
    await schedule.remove()
