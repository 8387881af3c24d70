"""Topics: published once, read by whoever subscribes; alone by a cursor, or in a group that shares the messages."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from streammesh import Mesh, Message, new_flow, topics
from streammesh.errors import BroadcastGap, BudgetExceeded, ConfigError, HopLimit, InvalidName, NoCapableAgent
from streammesh.testing import leaked_keys
from tests.eventually import eventually


@pytest.fixture(params=["memory", "one-shard", "three-shards"])
async def mesh(request: pytest.FixtureRequest, namespace: str) -> AsyncIterator[Mesh]:
    url = f"memory://{secrets.token_hex(4)}" if request.param == "memory" else request.getfixturevalue("url")
    async with Mesh.connect(url, namespace=namespace, shards=3 if request.param == "three-shards" else 1) as mesh:
        yield mesh
        assert await leaked_keys(mesh) == []


async def pending(mesh: Mesh, topic: str, group: str) -> int:
    return int((await mesh.store.command("XPENDING", mesh.keys.topic(topic), group))[0])


async def members(mesh: Mesh, topic: str, group: str) -> set[str]:
    """Those that have a consumer."""
    rows = await mesh.store.command("XINFO", "CONSUMERS", mesh.keys.topic(topic), group)
    return {row[row.index("name") + 1] for row in rows} - {"-"}


async def inbox(mesh: Mesh) -> list[tuple[str, str]]:
    return [(letter.id, letter.error) async for letter in mesh.dead.letters("inbox")]


async def read(
    mesh: Mesh, into: list[Message], count: int, group: str | None = None, start: str = "tail", begun: asyncio.Event | None = None
) -> None:  # fmt: skip
    async with mesh.subscribe("news", group, start, lease=1.0) as messages:
        if begun:
            begun.set()
        if count:
            async for message in messages:
                into.append(message)
                if len(into) >= count:
                    break


async def test_every_subscriber_gets_every_message_in_order(mesh: Mesh) -> None:
    found: list[list[Message]] = [[], []]
    begun = [asyncio.Event(), asyncio.Event()]
    await mesh.publish("news", "too early")
    reading = [asyncio.create_task(read(mesh, into, 20, begun=one)) for into, one in zip(found, begun, strict=True)]
    for one in begun:
        await one.wait()
    sent = [await mesh.publish("news", {"n": n}) for n in range(20)]
    await asyncio.wait_for(asyncio.gather(*reading), 10)
    for into in found:
        assert [message.id for message in into] == sent
        assert [message.payload["n"] for message in into] == list(range(20))
        assert {(message.type, message.source) for message in into} == {("news", mesh.messages.source)}


async def test_a_reader_begins_at_the_head_or_where_it_was(mesh: Mesh) -> None:
    sent = [await mesh.publish("news", n) for n in range(5)]
    async with mesh.subscribe("news", start="head") as messages:
        first = [await anext(messages) for _ in range(2)]
    async with mesh.subscribe("news", start=messages.cursor) as messages:
        rest = [await anext(messages) for _ in range(3)]
    assert [message.id for message in first + rest] == sent


async def test_the_members_of_a_group_share_the_messages(mesh: Mesh) -> None:
    await read(mesh, [], 0, "desk", "head")  # a group is durable: it gets what is published while nobody is there
    sent = {await mesh.publish("news", n) for n in range(40)}
    found: list[Message] = []
    reading = [asyncio.create_task(read(mesh, found, 40, "desk")) for _ in range(3)]
    await eventually(lambda: len(found) == 40)
    for one in reading:
        one.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*reading)
    assert {message.id for message in found} == sent
    assert {message.delivery for message in found} == {1}


async def test_another_group_sees_all_of_it_too(mesh: Mesh) -> None:
    sent = [await mesh.publish("news", n) for n in range(5)]
    for group in ("desk", "archive"):
        found: list[Message] = []
        await read(mesh, found, 5, group, "head")
        assert [message.id for message in found] == sent
        assert await pending(mesh, "news", group) == 0


async def test_a_message_stays_pending_until_the_loop_goes_on(mesh: Mesh) -> None:
    for n in range(2):
        await mesh.publish("news", n)
    async with mesh.subscribe("news", "desk", "head") as messages:
        one = await anext(messages)
        assert await pending(mesh, "news", "desk") == 1
        two = await anext(messages)
        assert (one.payload, two.payload) == (0, 1)
        assert await pending(mesh, "news", "desk") == 1
        await two.done()
        await two.done()
        assert await pending(mesh, "news", "desk") == 0


async def test_a_body_that_raises_leaves_its_message_to_another_at_once(mesh: Mesh) -> None:
    sent = await mesh.publish("news", 1)
    with pytest.raises(RuntimeError, match="mine"):  # noqa: PT012
        async with mesh.subscribe("news", "desk", "head", lease=60) as messages:
            async for _ in messages:
                raise RuntimeError("mine")
    assert await members(mesh, "news", "desk") == set(), "its consumer is gone, and nothing is pending with it"
    async with mesh.subscribe("news", "desk", lease=60) as messages:
        again = await asyncio.wait_for(anext(messages), 5)
    assert (again.id, again.delivery) == (sent, 2)
    assert await pending(mesh, "news", "desk") == 0
    assert await members(mesh, "news", "desk") == set()


async def test_what_was_taken_and_not_begun_goes_back(mesh: Mesh) -> None:
    sent = [await mesh.publish("news", n) for n in range(10)]
    async with mesh.subscribe("news", "desk", "head", prefetch=10, lease=60) as messages:
        assert (await anext(messages)).id == sent[0]
        assert await pending(mesh, "news", "desk") == 10
    found: list[Message] = []
    await asyncio.wait_for(read(mesh, found, 9, "desk"), 5)
    assert sorted(message.id for message in found) == sorted(sent[1:])


async def test_a_member_that_is_silent_for_a_lease_is_replaced(mesh: Mesh) -> None:
    sent = await mesh.publish("news", 1)
    silent = mesh.subscribe("news", "desk", "head", lease=0.3)
    await silent.__aenter__()
    held = await anext(silent)
    async with mesh.subscribe("news", "desk", lease=0.3) as messages:
        waiting = asyncio.ensure_future(anext(messages))
        done, _ = await asyncio.wait([waiting], timeout=1.0)
        assert not done, "it is renewed while its body runs"
        assert silent._keeper is not None
        silent._keeper.cancel()
        message = await asyncio.wait_for(waiting, 5)
        assert (message.id, message.delivery) == (sent, 2)
        await held.done()
        assert silent.lost == 1
        assert await pending(mesh, "news", "desk") == 1, "who lost it cannot acknowledge it"
    await silent.__aexit__(None, None, None)


async def test_a_message_that_nobody_survives_is_a_dead_letter(mesh: Mesh) -> None:
    poison, good = await mesh.publish("news", "poison"), await mesh.publish("news", "good")
    heard = []
    for _ in range(10):
        try:
            async with mesh.subscribe("news", "desk", "head") as messages:
                async for message in messages:
                    heard.append(message.id)
                    if message.payload == "poison":
                        raise RuntimeError
                    break
                break
        except RuntimeError:
            continue
    assert heard == [poison] * 3 + [good]
    ((id, error),) = await inbox(mesh)
    assert id == poison
    assert "3 members of group desk did not finish it" in error


async def test_a_message_can_be_given_up_by_hand(mesh: Mesh) -> None:
    id = await mesh.publish("news", 1)
    async with mesh.subscribe("news", "desk", "head") as messages:
        await (await anext(messages)).done(failed="it makes no sense")
    assert await inbox(mesh) == [(id, "message news, group desk: it makes no sense")]
    assert await pending(mesh, "news", "desk") == 0


async def test_a_reader_that_fell_behind_is_told_how_much_it_missed(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics, "KEPT", 50)
    for n in range(5):
        await mesh.publish("news", n)
    async with (
        mesh.subscribe("news", start="head") as alone,
        mesh.subscribe("news", "desk", "head") as member,
    ):
        assert [(await anext(messages)).payload for messages in (alone, member)] == [0, 0]
        with new_flow():
            for n in range(5, 500):
                await mesh.publish("news", n)
        alone._ready.clear()  # what it had read already
        for messages in (alone, member):
            told: list[BroadcastGap] = []
            found: list[int] = []
            while not found or found[-1] != 499:
                try:
                    async for message in messages:
                        found.append(message.payload)
                        if message.payload == 499:
                            break
                except BroadcastGap as gap:
                    told.append(gap)
            (only,) = told
            assert only.lost
            assert found == list(range(500 - len(found), 500))
            assert only.lost in (499 - len(found), 495 - len(found)), "exactly: from the last one that was given to it"
    with pytest.raises(BroadcastGap, match="were dropped before"):
        async with mesh.subscribe("news", start="1-1") as messages:
            await anext(messages)


async def test_a_message_that_was_trimmed_while_somebody_held_it_is_told_of(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    await mesh.publish("news", "old")
    with pytest.raises(RuntimeError):  # noqa: PT012
        async with mesh.subscribe("news", "desk", "head") as messages:
            async for _ in messages:
                raise RuntimeError
    monkeypatch.setattr(topics, "KEPT", 1)
    for n in range(300):
        await mesh.publish("news", n)
    async with mesh.subscribe("news", "desk") as messages:
        with pytest.raises(BroadcastGap):
            await anext(messages)
        assert isinstance((await anext(messages)).payload, int)


async def test_publishing_to_nobody_is_refused_where_somebody_is_required(mesh: Mesh) -> None:
    with pytest.raises(NoCapableAgent, match="nobody subscribes to topic news") as refused:
        await mesh.publish("news", require_subscriber=True)
    assert refused.value.reason == "no_subscriber"
    assert await mesh.store.command("EXISTS", mesh.keys.topic("news")) == 0
    async with mesh.subscribe("news"):
        await mesh.publish("news", require_subscriber=True)
    with pytest.raises(NoCapableAgent):
        await mesh.publish("news", require_subscriber=True)
    await read(mesh, [], 0, "desk")
    await mesh.publish("news", require_subscriber=True)


async def test_the_same_id_is_the_same_message_for_a_minute(mesh: Mesh) -> None:
    assert {await mesh.publish("news", 1, id="order-17") for _ in range(3)} == {"order-17"}
    assert await mesh.store.command("XLEN", mesh.keys.topic("news")) == 1
    assert 0 < await mesh.store.command("PTTL", f"{mesh.keys.prefix()}sent:order-17") <= 60_000


async def test_what_the_body_sends_belongs_to_the_flow(mesh: Mesh) -> None:
    first = await mesh.publish("news", 0)
    heard: list[Message] = []
    with pytest.raises(HopLimit):  # noqa: PT012
        async with mesh.subscribe("news", "desk", "head") as messages:
            async for message in messages:
                heard.append(message)
                await mesh.publish("news", message.payload + 1)
    assert {message.correlation for message in heard} == {first}
    assert [message.hops for message in heard] == list(range(17))
    assert heard[1].causation == heard[0].id
    assert (await mesh.publish("news", "outside")) != first
    mesh.boundaries.messages = 0
    with pytest.raises(BudgetExceeded):
        await mesh.publish("news")


async def test_stopping_ends_the_loop_after_the_message_at_hand(mesh: Mesh) -> None:
    for n in range(3):
        await mesh.publish("news", n)
    found = []
    async with mesh.subscribe("news", "desk", "head") as messages:
        async for message in messages:
            found.append(message.payload)
            messages.stop()
    assert found == [0]
    async with mesh.subscribe("quiet", "desk") as messages:
        asyncio.get_running_loop().call_later(0.05, messages.stop)
        async with asyncio.timeout(1):
            async for _ in messages:
                raise AssertionError


async def test_options_that_cannot_work_are_refused(mesh: Mesh) -> None:
    for wrong in ({"start": "middle"}, {"lease": 0}, {"prefetch": 0}):
        with pytest.raises(ConfigError):
            mesh.subscribe("news", **wrong)
    with pytest.raises(InvalidName):
        mesh.subscribe("News: today")
    with pytest.raises(InvalidName):
        await mesh.publish("News: today")
    with pytest.raises(InvalidName):
        mesh.subscribe("news", "a b")
    with pytest.raises(ConfigError):
        await anext(mesh.subscribe("news"))
