"""What an agent mesh is made of, each with the flaw that its naive version has: these tests fail when the flaw is put in.

The flaws that belong to one part are held by that part's tests; here is what lies between them.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
import time
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
import redis

from streammesh import Agent, Membership, Mesh, Message, PeerInfo, TaskContext
from streammesh.errors import AgentDied, NotUnderstood, PayloadTooLarge
from streammesh.messages import BROADCAST_KEPT
from streammesh.peers import why_none
from tests.eventually import eventually
from tests.guide.conftest import Serve, serve

__all__ = ["serve"]

on_server = pytest.mark.parametrize("mesh", ["server"], indirect=True)


@pytest.fixture(params=["memory", "server"])
async def mesh(request: pytest.FixtureRequest, namespace: str) -> AsyncIterator[Mesh]:
    url = f"memory://{secrets.token_hex(4)}" if request.param == "memory" else request.getfixturevalue("url")
    async with Mesh.connect(url, namespace=namespace) as mesh:
        yield mesh


def listener(name: str, heard: list[Any], *, lease: float = 1.0) -> Agent:
    """Notes the payloads of `news`, and answers `echo`."""
    agent = Agent(name, lease=lease)

    @agent.on("news")
    async def news(message: Message) -> None:
        heard.append(message.payload)

    @agent.on("echo")
    async def echo(message: Message) -> Any:
        return message.payload

    return agent


# -- broadcast, send


async def test_a_broadcast_is_for_those_who_are_here_and_not_for_its_sender(mesh: Mesh, serve: Serve) -> None:
    early: list[Any] = []
    late: list[Any] = []
    shouts: list[Any] = []
    shouter = listener("shouter", shouts)

    @shouter.on("shout")
    async def shout(message: Message) -> None:
        await message.mesh.broadcast("news", message.payload)

    await serve(listener("early", early))
    await serve(shouter)
    await mesh.send("shouter", "shout", 1)
    await eventually(lambda: early == [1])
    await serve(listener("late", late))
    await mesh.broadcast("news", 2)
    await eventually(lambda: bool(late) and bool(shouts) and len(early) == 2)
    assert (early, shouts, late) == ([1, 2], [2], [2])


@on_server
async def test_who_missed_more_broadcasts_than_are_kept_is_told_so(mesh: Mesh, serve: Serve) -> None:
    heard: list[Any] = []
    agent, gaps = listener("slow", heard), []

    @agent.on("broadcast.gap")
    async def gap(message: Message) -> None:
        gaps.append(message.payload)

    await serve(agent)
    await mesh.broadcast("news", "first")
    await eventually(lambda: heard == ["first"])
    with redis.Redis.from_url(mesh.url) as stranger, stranger.pipeline() as pipe:
        [(_, first)] = stranger.xrevrange(mesh.keys.broadcast, count=1)
        number = int(first[b"number"])
        # In one step, and the loop of the agent stands still as long: it comes back to what is left.
        for n in range(3 * BROADCAST_KEPT):
            # Numbered as broadcasts are: the first one, which was heard, has the number before.
            fields = {"id": f"m{n}", "type": "news", "payload": str(n), "number": str(number + n + 1)}
            pipe.xadd(mesh.keys.broadcast, fields, maxlen=BROADCAST_KEPT)
        pipe.execute()
    await eventually(lambda: heard[-1] == 3 * BROADCAST_KEPT - 1)
    assert len(heard) < 1 + 3 * BROADCAST_KEPT, "some are missed"
    assert gaps, "and that is said"


async def test_no_name_is_a_word_of_the_protocol(mesh: Mesh, serve: Serve) -> None:
    heard: dict[str, list[Any]] = {"broadcast": [], "agent": [], "all": []}
    for name, what in heard.items():
        await serve(listener(name, what))
    for name in heard:
        await mesh.send(name, "news", name)
    await eventually(lambda: all(heard.values()))
    assert heard == {name: [name] for name in heard}


@on_server
async def test_mail_that_nobody_has_read_yet_is_never_cut(mesh: Mesh, serve: Serve) -> None:
    agent, heard, open_now = Agent("slow", lease=5.0), Counter[int](), asyncio.Event()

    @agent.on("news")
    async def news(message: Message) -> None:
        await open_now.wait()
        heard[message.payload] += 1

    await serve(agent)
    for some in range(0, 3000, 100):
        await asyncio.gather(*(mesh.send("slow", "news", n) for n in range(some, some + 100)))
    open_now.set()
    await eventually(lambda: heard.total() >= 3000, timeout=30)
    assert heard == Counter(range(3000))


async def test_what_an_agent_does_not_know_it_says_once_and_goes_on(mesh: Mesh, serve: Serve) -> None:
    """An older agent beside newer ones: an unknown type is no poison, unknown fields are headers."""
    heard: list[Any] = []
    id = await serve(listener("older", heard))
    await mesh.send("older", "invented.later", {"n": 1})
    with pytest.raises(NotUnderstood, match=r"invented.later"):
        await mesh.request("invented.later", to="older", timeout=5)
    await mesh.messages.publish(f"agent {id}", "news", "with more", extra=("meshcolour", "blue"))
    await eventually(lambda: heard == ["with more"])
    assert await mesh.request("echo", 1, to="older", timeout=5) == 1

    async def empty() -> bool:
        return int(await mesh.store.command("XLEN", mesh.keys.mail(id))) == 0

    await eventually(empty, what="nothing comes again")
    assert [one.state for one in await mesh.agents()] == ["ready"]


async def test_whoever_fails_at_a_broadcast_fails_alone(mesh: Mesh, serve: Serve) -> None:
    heard: list[Any] = []
    bad = Agent("bad", lease=1.0)

    @bad.on("news")
    async def news(_: Message) -> None:
        raise RuntimeError("not mine")

    await serve(bad)
    await serve(listener("good", heard))
    for n in range(3):
        await mesh.broadcast("news", n)
    await eventually(lambda: heard == [0, 1, 2])
    assert len(await mesh.agents()) == 2


async def test_what_is_heard_is_a_copy_whatever_carries_it(mesh: Mesh, serve: Serve) -> None:
    agent, said = Agent("editor", lease=1.0), {"words": ["a"]}

    @agent.on("edit")
    async def edit(message: Message) -> Any:
        message.payload["words"].append("b")
        return message.payload

    await serve(agent)
    assert await mesh.request("edit", said, to="editor", timeout=5) == {"words": ["a", "b"]}
    assert said == {"words": ["a"]}


async def test_a_message_has_a_largest_size_however_it_is_sent(mesh: Mesh, serve: Serve) -> None:
    await serve(listener("any", []))
    large = "x" * (1 << 20)
    for call in (mesh.send("any", "news", large), mesh.broadcast("news", large), mesh.request("echo", large, to="any")):
        with pytest.raises(PayloadTooLarge):
            await call
    assert await mesh.store.command("XLEN", mesh.keys.broadcast) == 0


# -- clocks and deaths


@on_server
@pytest.mark.parametrize("hours", [-2, 2])
async def test_the_clock_of_a_client_decides_nothing(
    mesh: Mesh, serve: Serve, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = listener("any", [])

    @agent.capability("work")
    async def work() -> str:
        return "done"

    await serve(agent)
    true = time.time
    monkeypatch.setattr(time, "time", lambda: true() + 3600 * hours)
    monkeypatch.setattr(time, "time_ns", lambda: int((true() + 3600 * hours) * 1e9))
    assert await mesh.request("echo", 1, to="any", timeout=5) == 1
    assert await mesh.call("work", deadline=5, timeout=5) == "done"
    task = await mesh.enqueue("work", delay=0.2, deadline=5)
    assert await task.result(timeout=5) == "done"
    assert len(await mesh.agents()) == 1


VICTIM = """
import asyncio, sys
from streammesh import Agent
agent = Agent("victim", lease=1.0)
@agent.on("ponder")
async def ponder(message):
    print("pondering", flush=True)
    await asyncio.Event().wait()
agent.run(sys.argv[1], namespace=sys.argv[2])
"""


@on_server
async def test_a_request_to_one_that_is_killed_ends_with_its_lease_and_not_with_its_deadline(
    mesh: Mesh, serve: Serve
) -> None:
    """AgentDied at most a lease and a second after the kill; the deadline was 30 s away."""
    await serve(listener("witness", []))
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", VICTIM, mesh.url, mesh.namespace, stdout=PIPE)
    try:

        async def there() -> bool:
            return any(one.name == "victim" and one.state == "ready" for one in await mesh.agents())

        await eventually(there, timeout=20)
        asking = asyncio.create_task(mesh.request("ponder", to="victim", timeout=30))
        assert process.stdout
        assert await process.stdout.readline() == b"pondering\n"
        process.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        with pytest.raises(AgentDied):
            await asking
        took = time.monotonic() - killed
        sys.stdout.write(f"AgentDied after {took:.2f} s\n")
        assert took <= 1.0 + 1.0
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@on_server
async def test_an_id_is_known_as_long_as_its_record_and_then_new_again(mesh: Mesh, serve: Serve) -> None:
    agent, ran = Agent("forgetful", lease=1.0), []

    @agent.capability("once", retention=0.5)
    async def once(ctx: TaskContext) -> int:
        ran.append(ctx.id)
        return len(ran)

    await serve(agent)
    first = await mesh.enqueue("once", id="the-one")
    assert await first.result(timeout=5) == 1
    assert not (await mesh.enqueue("once", id="the-one")).created
    await eventually(lambda: _gone(mesh, "the-one"), what="its record has ended")
    again = await mesh.enqueue("once", id="the-one")
    assert again.created
    assert await again.result(timeout=5) == 2


async def _gone(mesh: Mesh, id: str) -> bool:
    return not await mesh.store.command("EXISTS", mesh.keys.task(id))


# -- who is here


async def test_a_thousand_looks_at_the_peers_are_one_read_at_most(
    mesh: Mesh, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    await serve(listener("one", []))
    await mesh.peers(fresh=True)
    asked: list[str] = []
    for verb in ("run", "command", "commands"):
        true = getattr(mesh.store, verb)

        def counted(*args: Any, _true: Any = true, **more: Any) -> Any:
            asked.append(str(args[0]))
            return _true(*args, **more)

        monkeypatch.setattr(mesh.store, verb, counted)
    (peer,) = await mesh.peers()
    for _ in range(999):
        assert await mesh.peers() == [peer]
    assert len(asked) <= 1, asked
    with pytest.raises(FrozenInstanceError):
        peer.busy = 7  # type: ignore[misc]


async def test_all_agents_come_in_pages(mesh: Mesh, serve: Serve) -> None:
    ids = [await serve(listener(f"a{n}", [], lease=30.0)) for n in range(5)]
    seen: list[str] = []
    cursor, pages = 0, 0
    while True:
        peers, cursor = await mesh.roster.page(cursor, 2)
        assert len(peers) <= 2
        seen += [peer.id for peer in peers]
        pages += 1
        if not cursor:
            break
    assert (sorted(seen), pages) == (sorted(ids), 3)


async def test_the_feed_alone_keeps_the_picture_true(mesh: Mesh) -> None:
    def told(place: int, type: str, agent: str) -> str:
        name = agent.partition(".")[0]
        mesh.roster.take(
            f"{place}-0", {"type": type, "agent": agent, "name": name, "state": "ready", "capabilities": "x"}
        )
        return " ".join(sorted(one.id for one in mesh.roster.known("x")))

    await mesh.roster.follow("0-0")
    assert told(1, "joined", "ann.1") == "ann.1"
    assert told(2, "joined", "bob.2") == "ann.1 bob.2"
    assert told(3, "left", "ann.1") == "bob.2"
    assert told(1, "joined", "ann.1") == "bob.2", "what is older than what is known changes nothing"
    assert told(4, "died", "bob.2") == ""


def test_why_nobody_can_be_given_work() -> None:
    ready = PeerInfo("a.1", "a", 1, ("work",), (), "ready", 2, 0)
    draining, suspect, full = replace(ready, state="draining"), replace(ready, status="suspect"), replace(ready, busy=2)
    assert why_none([]) == "none_registered"
    assert why_none([ready], paused=True) == "all_paused"
    assert why_none([draining, draining]) == "all_draining"
    assert why_none([suspect, draining]) == "all_suspect"
    assert why_none([full, suspect]) == "all_full"
    assert [one.willing for one in (ready, draining, suspect)] == [True, False, False]


async def test_who_watches_and_fails_does_not_keep_it_from_others(mesh: Mesh, serve: Serve) -> None:
    observer, told = listener("observer", []), []

    @observer.on_join
    async def broken(_: Membership) -> None:
        raise RuntimeError("not today")

    @observer.on_join
    async def whole(one: Membership) -> None:
        told.append((one.type, one.reason, one.agent))

    await serve(observer)
    ids = [await serve(listener(f"n{n}", [])) for n in range(2)]
    await eventually(lambda: len(told) >= 2)
    assert told == [("joined", "new", id) for id in ids], "in order, once each"
