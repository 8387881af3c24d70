"""A task is a capability and a payload. Whoever offers the capability does it, once for each id."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from streammesh import Agent, Mesh, State, Task, TaskContext
from streammesh.errors import InvalidPayload, PayloadConflict, TaskDead, TaskExpired
from streammesh.testing import run_until_idle
from tests.eventually import eventually
from tests.guide.conftest import Serve


async def test_a_task_is_enqueued_and_an_agent_does_it(mesh: Mesh) -> None:
    agent = Agent("librarian")

    @agent.capability("shout")
    async def shout(text: str) -> str:
        return text.upper()

    task = await mesh.enqueue("shout", text="hello")
    await run_until_idle(mesh, agent)
    assert await task.result(timeout=5) == "HELLO"


async def test_the_payload_is_an_object_and_its_fields_are_the_arguments(mesh: Mesh) -> None:
    agent = Agent("librarian")

    @agent.capability("repeat")
    async def repeat(text: str, times: int = 2) -> str:
        return text * times

    short = await mesh.enqueue("repeat", text="ha")
    full = await mesh.enqueue("repeat", {"text": "ho", "times": 3})
    await run_until_idle(mesh, agent)
    assert (await short.result(), await full.result()) == ("haha", "hohoho")


async def test_a_payload_that_does_not_fit_becomes_a_dead_letter_at_once(mesh: Mesh) -> None:
    agent = Agent("librarian")

    @agent.capability("repeat", retries=5)
    async def repeat(text: str, times: int = 2) -> str:
        raise AssertionError("never called")

    task = await mesh.enqueue("repeat", words="ha")
    assert (await run_until_idle(mesh, agent)).attempts == 1
    with pytest.raises(TaskDead, match=r"misses text and has the unknown words; repeat takes text, times\?"):
        await task.result()


@dataclass
class Book:
    title: str
    pages: int = 100


async def test_annotated_dataclasses_are_built_from_the_payload(mesh: Mesh) -> None:
    agent = Agent("librarian")

    @agent.capability("weigh")
    async def weigh(book: Book) -> float:
        return book.pages * 5.0

    task = await mesh.enqueue("weigh", book={"title": "Middlemarch", "pages": 880})
    await run_until_idle(mesh, agent)
    assert await task.result() == 4400.0


async def test_the_id_makes_a_task_unique(mesh: Mesh) -> None:
    """Whoever is not sure whether a call got through makes it again."""
    agent, runs = Agent("librarian"), []

    @agent.capability("lend")
    async def lend(book: str) -> str:
        runs.append(book)
        return f"{book} is yours"

    first = await mesh.enqueue("lend", {"book": "Emma"}, id="lend-17")
    again = await mesh.enqueue("lend", {"book": "Emma"}, id="lend-17")
    assert (first.created, again.created) == (True, False)
    await run_until_idle(mesh, agent)
    after = await mesh.enqueue("lend", {"book": "Emma"}, id="lend-17")
    assert not after.created
    assert await after.result() == "Emma is yours"
    assert runs == ["Emma"]


async def test_the_order_of_the_fields_does_not_matter(mesh: Mesh) -> None:
    await mesh.enqueue("lend", {"book": "Emma", "to": {"name": "Ada", "age": 3}}, id="lend-18", delay=60)
    again = await mesh.enqueue("lend", {"to": {"age": 3, "name": "Ada"}, "book": "Emma"}, id="lend-18")
    assert not again.created
    await again.cancel()


async def test_a_known_id_with_another_payload_is_a_conflict(mesh: Mesh) -> None:
    task = await mesh.enqueue("lend", {"book": "Emma"}, id="lend-19")
    with pytest.raises(PayloadConflict, match="lend-19"):
        await mesh.enqueue("lend", {"book": "Persuasion"}, id="lend-19")
    assert (await task.record()).payload == {"book": "Emma"}
    await task.cancel()


async def test_many_are_enqueued_in_one_round_trip_with_a_verdict_for_each(mesh: Mesh) -> None:
    agent = Agent("librarian")

    @agent.capability("square")
    async def square(n: int) -> int:
        return n * n

    ids = ["a", "b", "c", "a", "a"]
    verdicts = await mesh.enqueue_many("square", [{"n": n} for n in (1, 2, 3, 1, 9)], ids=ids)
    assert [isinstance(one, Task) and one.created for one in verdicts[:4]] == [True, True, True, False]
    assert isinstance(verdicts[4], PayloadConflict)
    await run_until_idle(mesh, agent)
    assert [await mesh.task(id).result() for id in "abc"] == [1, 4, 9]


async def test_a_delay_puts_a_task_off(mesh: Mesh, serve: Serve) -> None:
    agent, begun = Agent("librarian", lease=1.0), []

    @agent.capability("remind")
    async def remind(what: str) -> None:
        begun.append(what)

    await serve(agent)
    later = await mesh.enqueue("remind", {"what": "later"}, delay=0.2)
    assert (await later.record()).state == State.DELAYED
    await (await mesh.enqueue("remind", {"what": "now"})).result(5)
    await later.result(5)
    assert begun == ["now", "later"]


async def test_a_task_may_wait_for_a_point_in_time(mesh: Mesh) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    task = await mesh.enqueue("remind", {"what": "tea"}, at=tomorrow)
    assert (await task.record()).fields["due"] == str(int(tomorrow.timestamp() * 1000))
    with pytest.raises(InvalidPayload, match="no time zone"):
        await mesh.enqueue("remind", {"what": "tea"}, at=datetime(2030, 1, 1))  # noqa: DTZ001
    await task.cancel()


async def test_a_task_that_nobody_began_before_its_deadline_expires(mesh: Mesh) -> None:
    agent = Agent("librarian")
    agent.capability("remind")(lambda what: what)
    task = await mesh.enqueue("remind", {"what": "tea"}, deadline=0.0)
    await run_until_idle(mesh, agent)
    with pytest.raises(TaskExpired, match="before it could start"):
        await task.result()


async def test_the_deadline_also_ends_a_task_that_runs(mesh: Mesh, serve: Serve) -> None:
    agent = Agent("librarian", lease=1.0)

    @agent.capability("ponder")
    async def ponder() -> None:
        await eventually(lambda: False, timeout=30)

    await serve(agent)
    task = await mesh.enqueue("ponder", {}, deadline=0.2)
    with pytest.raises(TaskExpired, match="while it ran"):
        await task.result(5)


async def test_high_priority_goes_first(mesh: Mesh) -> None:
    agent, order = Agent("librarian", slots=1), []

    @agent.capability("serve")
    async def serve(who: str) -> None:
        order.append(who)

    await mesh.enqueue_many("serve", [{"who": "anybody"}] * 30)
    await mesh.enqueue_many("serve", [{"who": "the queen"}] * 12, priority="high")
    await run_until_idle(mesh, agent)
    shards = mesh.keys.shards
    assert order[: 2 * shards].count("the queen") >= (2 if shards == 1 else 1)
    assert order.index("the queen") < order.index("anybody") or shards > 1
    if shards == 1:  # of several shards, one may happen to hold most of the queens
        assert max(n for n, who in enumerate(order) if who == "the queen") < 36


async def test_low_priority_never_starves(mesh: Mesh) -> None:
    """One turn in ten is its own, however much else waits."""
    agent, order = Agent("librarian", slots=1), []

    @agent.capability("serve")
    async def serve(who: str) -> None:
        order.append(who)

    await mesh.enqueue_many("serve", [{"who": "high"}] * 120, priority="high")
    await mesh.enqueue_many("serve", [{"who": "low"}] * 6, priority="low")
    await run_until_idle(mesh, agent)
    assert order.index("low") < 20 * mesh.keys.shards
    if mesh.keys.shards == 1:  # of several shards, one may happen to hold few of the others
        assert order[-1] == "high"


async def test_a_task_may_go_to_one_agent(mesh: Mesh, serve: Serve) -> None:
    agents = [Agent("librarian", lease=1.0) for _ in range(2)]
    for number, agent in enumerate(agents):

        @agent.capability("who")
        async def who(number: int = number) -> int:
            return number

    ids = [await serve(agent) for agent in agents]
    tasks = [await mesh.enqueue("who", {}, to=ids[n % 2]) for n in range(6)]
    assert [await task.result(5) for task in tasks] == [0, 1, 0, 1, 0, 1]


async def test_headers_travel_beside_the_payload(mesh: Mesh) -> None:
    agent = Agent("librarian")

    @agent.capability("answer")
    async def answer(ctx: TaskContext) -> dict[str, str]:
        return dict(ctx.headers)

    task = await mesh.enqueue("answer", {}, headers={"tenant": "acme", "lang": "en"})
    await run_until_idle(mesh, agent)
    assert await task.result() == {"tenant": "acme", "lang": "en"}


async def test_what_a_handler_enqueues_carries_the_same_correlation(mesh: Mesh) -> None:
    """So everything that one request set off is found by one word."""
    agent = Agent("librarian")

    @agent.capability("order")
    async def order(ctx: TaskContext) -> None:
        await ctx.mesh.enqueue("pack", id="pack-1")

    @agent.capability("pack")
    def pack(ctx: TaskContext) -> None:
        ctx.run(ctx.mesh.enqueue("ship", id="ship-1"))

    @agent.capability("ship")
    async def ship() -> None: ...

    await mesh.enqueue("order", id="order-1")
    await run_until_idle(mesh, agent)
    pack_record, ship_record = [await mesh.task(id).record() for id in ("pack-1", "ship-1")]
    assert (pack_record.fields["correlation"], pack_record.fields["causation"]) == ("order-1", "order-1")
    assert (ship_record.fields["correlation"], ship_record.fields["causation"]) == ("order-1", "pack-1")


async def test_a_bare_xadd_is_a_task(mesh: Mesh, redis: Redis) -> None:
    """Any client in any language may enqueue. The id comes from the stream and the entry; other fields are headers."""
    agent, headers = Agent("librarian"), []

    @agent.capability("shout")
    async def shout(text: str, ctx: TaskContext) -> str:
        headers.append(dict(ctx.headers))
        return text.upper()

    stream = mesh.keys.tasks("shout")
    await redis.xadd(stream, {"payload": '{"text": "hi"}', "lang": "en"})
    await redis.xadd(stream, {"payload": '{"text": "ho"}', "id": own_id(mesh)})
    assert (await run_until_idle(mesh, agent)).succeeded == 2
    assert headers == [{"lang": "en"}, {}]
    assert await mesh.task(own_id(mesh)).result() == "HO"


def own_id(mesh: Mesh) -> str:
    """With several shards a raw task must be put where its id lives; without an id any shard will do."""
    return next(f"my-own-{n}" for n in range(100) if mesh.keys.shard_of(f"my-own-{n}") == 0)
