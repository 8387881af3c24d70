"""What an agent offers may change while it serves, and says of itself which version it is and what it is good at."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from streammesh import Agent, Membership, Mesh, Message
from streammesh.causes import Causes
from streammesh.errors import ConfigError, NoCapableAgent
from tests.eventually import eventually
from tests.guide.conftest import Serve


def plain(name: str, *, slots: int = 4) -> Agent:
    agent = Agent(name, lease=1.0, slots=slots)

    @agent.on("who")
    async def who(_: Message) -> str:
        return name

    return agent


def reading(name: str, go: asyncio.Event, began: list[str], **options: int) -> Agent:
    agent = plain(name, **options)

    @agent.capability("read")
    async def read(book: str) -> str:
        began.append(book)
        await go.wait()
        return f"{name} read {book}"

    return agent


async def changes(mesh: Mesh) -> list[Membership]:
    entries = await mesh.store.command("XRANGE", mesh.keys.members, "-", "+")
    read = [Membership.read(at, dict(zip(flat[::2], flat[1::2], strict=True))) for at, flat in entries]
    return [one for one in read if one.type == "changed"]


async def test_a_capability_is_announced_and_withdrawn_while_the_agent_serves(mesh: Mesh, serve: Serve) -> None:
    agent = plain("ann")
    id = await serve(agent)
    task = await mesh.enqueue("read", book="Dune")

    async def read(book: str) -> str:
        return book.upper()

    await agent.announce("read", read, retries=1)
    assert [one.id for one in await mesh.peers("read", fresh=True)] == [id]
    assert (await changes(mesh))[-1].capabilities == ("read",)
    assert await task.result(timeout=10) == "DUNE", "what waited for it is done"
    assert await mesh.call("read", book="Emma", priority="high", timeout=10) == "EMMA"
    with pytest.raises(ConfigError, match="offers 'read' already"):
        await agent.announce("read", read)
    await agent.withdraw("read")
    assert await mesh.peers("read", fresh=True) == []
    assert (await changes(mesh))[-1].capabilities == ()
    with pytest.raises(ConfigError, match="does not offer 'read'"):
        await agent.withdraw("read")
    waits = await mesh.enqueue("read", book="Ulysses")
    high = await mesh.enqueue("read", book="Faust", priority="high")
    assert await mesh.request("who") == "ann", "it serves on"
    cause = await Causes(mesh.store, mesh.keys).explain(waits.id)
    assert cause.word == "nobody"
    assert f"no live agent offers read (last: {id}, which withdrew it" in cause.text
    await agent.announce("read", read)
    assert await waits.result(timeout=10) == "ULYSSES"
    assert await high.result(timeout=10) == "FAUST"


async def test_what_runs_is_finished_before_it_is_withdrawn_and_nothing_new_begins(mesh: Mesh, serve: Serve) -> None:
    go, began = asyncio.Event(), list[str]()
    agent = reading("ann", go, began)
    await serve(agent)
    first = await mesh.enqueue("read", book="Dune")
    await eventually(lambda: began == ["Dune"])
    withdrawing = asyncio.create_task(agent.withdraw("read"))
    await eventually(lambda: agent.serving and "read" in agent.serving.lanes.closed)
    later = [await mesh.enqueue("read", book=str(n)) for n in range(3)]
    here = await mesh.enqueue("read", book="mine", to="ann")

    async def handed_on() -> bool:
        return "to" not in (await here.record()).fields

    await eventually(handed_on, what="what is addressed to it waits for others")
    assert (began, withdrawing.done()) == (["Dune"], False)
    assert len(await mesh.peers("read", fresh=True)) == 1, "listed until it is through"
    go.set()
    await withdrawing
    assert await first.result(timeout=10) == "ann read Dune"
    assert await mesh.peers("read", fresh=True) == []
    assert began == ["Dune"]
    await serve(reading("bob", go, began))
    assert {await task.result(timeout=10) for task in later} == {f"bob read {n}" for n in range(3)}
    assert await here.result(timeout=10) == "bob read mine"


async def test_a_withdrawal_that_is_cancelled_leaves_it_offered(mesh: Mesh, serve: Serve) -> None:
    go, began = asyncio.Event(), list[str]()
    agent = reading("ann", go, began)
    await serve(agent)
    await mesh.enqueue("read", book="Dune")
    await eventually(lambda: began)
    withdrawing = asyncio.create_task(agent.withdraw("read"))
    await eventually(lambda: agent.serving and "read" in agent.serving.lanes.closed)
    withdrawing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await withdrawing
    go.set()
    assert await mesh.call("read", book="Emma", timeout=10) == "ann read Emma"


async def test_another_serving_offers_what_was_declared(mesh: Mesh) -> None:
    go = asyncio.Event()
    go.set()
    agent = reading("ann", go, [])
    with pytest.raises(ConfigError, match="is not at work"):
        await agent.withdraw("read")
    for _ in range(2):
        async with Mesh.connect(mesh.url, namespace=mesh.namespace, patience=None) as own:
            serving = asyncio.create_task(agent.serve(own))
            await eventually(lambda: agent.serving and agent.serving._state == "ready")
            await agent.withdraw("read")
            agent.stop()
            await serving


def summarizing(name: str, version: int, **metadata: str) -> Agent:
    agent = plain(name)

    @agent.capability("summarize", version=version, metadata=metadata)
    async def summarize(text: str) -> str:
        return f"{name}: {text}"

    return agent


async def test_agents_are_found_by_version_and_metadata(mesh: Mesh, serve: Serve) -> None:
    old = await serve(summarizing("old", 1))
    de = await serve(summarizing("de", 2, lang="de", size="small"))
    en = await serve(summarizing("en", 2, lang="en"))

    async def found(**wanted: object) -> set[str]:
        return {one.id for one in await mesh.find("summarize", **wanted)}  # type: ignore[arg-type]

    await mesh.peers(fresh=True)
    assert await found() == {old, de, en}
    assert await found(version=1) == {old}
    assert await found(version=2) == {de, en}
    assert await found(version=2, metadata={"lang": "de"}) == {de}
    with pytest.raises(NoCapableAgent, match=r"'summarize' \(version 1, lang=de\)") as error:
        await found(version=1, metadata={"lang": "de"})
    assert error.value.reason == "none_registered"
    for _ in range(5):
        assert await mesh.request("who", capability="summarize", version=2, metadata={"lang": "en"}) == "en"
    with pytest.raises(NoCapableAgent, match=r"offer 'summarize' .version 3"):
        await mesh.request("who", capability="summarize", version=3)
    with pytest.raises(ConfigError, match="capability="):
        await mesh.request("who", version=3)
    peer = next(one for one in await mesh.peers("summarize") if one.id == de)
    assert (peer.skill("summarize").version, peer.skill("summarize").metadata["size"]) == (2, "small")
    (skill,) = (await mesh.registry.card(de))["skills"]
    assert skill["tags"] == ["streammesh", "takes: text", "version: 2", "lang: de", "size: small"]
    # One queue for all versions.
    assert (await mesh.call("summarize", text="x", timeout=10)).endswith(": x")


async def test_a_version_that_is_announced_is_seen_by_those_who_follow_the_feed(mesh: Mesh, serve: Serve) -> None:
    observer, agent = plain("observer"), summarizing("ann", 1)
    await serve(observer)
    id = await serve(agent)

    async def better(text: str) -> str:
        return text

    await agent.withdraw("summarize")
    await agent.announce("summarize", better, version=2, metadata={"lang": "de"})
    assert observer.serving
    roster = observer.serving._mesh.roster

    def known() -> bool:
        peer = roster.get(id)
        return bool(
            peer and peer.skill("summarize").version == 2 and peer.skill("summarize").metadata == {"lang": "de"}
        )

    await eventually(known)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"version": 0}, "version=0 is not usable"),
        ({"version": True}, "version=True is not usable"),
        ({"metadata": {"lang": 3}}, "texts"),
        ({"metadata": {"about": "x" * 2000}}, "1024 characters"),
    ],
)
def test_what_cannot_be_said_of_a_capability(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Agent("one").capability("x", **options)(lambda: None)  # type: ignore[arg-type]
