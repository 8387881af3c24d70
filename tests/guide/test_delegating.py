"""An agent need not do what it is given: it hands a task on to another one, puts it off, and nothing is lost."""

from __future__ import annotations

import asyncio
import threading

import pytest

from streammesh import Agent, Defer, Load, Mesh, Refuse
from streammesh.errors import ConfigError, TaskDead
from tests.eventually import eventually
from tests.guide.conftest import Serve


def translator(name: str, verdict: object, did: list[str], asked: list[str], **options: float) -> Agent:
    """Does what its ``verdict`` says; ``did`` and ``asked`` get its name."""
    agent = Agent(name, lease=1.0, slots=int(options.get("slots", 4)))

    @agent.capability("translate")
    async def translate(text: str) -> str:
        did.append(name)
        return text.upper()

    @agent.can_handle("translate")
    async def can(payload: dict[str, str], load: Load) -> object:
        assert payload["text"]
        assert load.slots == agent.slots
        asked.append(name)
        return verdict(payload) if callable(verdict) else verdict

    return agent


async def everybody_knows(mesh: Mesh, count: int) -> None:
    async def ready() -> bool:
        return len([one for one in await mesh.peers(fresh=True) if one.willing]) == count

    await eventually(ready)


async def test_a_refused_task_goes_to_somebody_else(mesh: Mesh, serve: Serve) -> None:
    did: list[str] = []
    asked: list[str] = []
    tired = await serve(translator("tired", Refuse("tired"), did, asked))
    await serve(translator("willing", True, did, asked))
    await everybody_knows(mesh, 2)
    task = await mesh.enqueue("translate", text="hi", to="tired")
    assert await task.result(timeout=10) == "HI"
    record = await task.record()
    assert (asked, did) == (["tired", "willing"], ["willing"])
    assert (record.fields["refused"], record.fields.get("failures", "0")) == (tired, "0")


async def test_after_two_refusals_a_task_goes_to_whoever_has_room(mesh: Mesh, serve: Serve) -> None:
    did: list[str] = []
    asked: list[str] = []
    open_again = threading.Event()

    def twice(_: object) -> object:
        return True if open_again.is_set() else Refuse("no", retry_after=0.05)

    ids = [await serve(translator(name, twice, did, asked)) for name in ("one", "two")]
    await everybody_knows(mesh, 2)
    task = await mesh.enqueue("translate", text="hi", to="one")
    await eventually(lambda: len(asked) >= 5)
    assert asked[:2] == ["one", "two"], "never back to the one that refused"
    open_again.set()
    assert await task.result(timeout=10) == "HI"
    assert len(did) == 1
    assert (await task.record()).fields["refused"].split()[:2] == ids


async def test_two_that_refuse_do_not_hand_it_to_each_other_for_ever(mesh: Mesh, serve: Serve) -> None:
    asked: list[str] = []
    for name in ("one", "two"):
        await serve(translator(name, Refuse("no", retry_after=60), [], asked))
    await everybody_knows(mesh, 2)
    task = await mesh.enqueue("translate", text="hi", to="one")

    async def waits() -> bool:
        return (await task.record()).state == "delayed"

    await eventually(waits)
    assert asked[:2] == ["one", "two"]
    assert len(asked) == 3, "each of them, and whoever took it from the queue"
    assert not (await task.record()).fields.get("to"), "it is for whoever has room"
    await task.cancel()


async def test_a_task_for_an_agent_that_cannot_do_it_reaches_one_that_can(mesh: Mesh, serve: Serve) -> None:
    other = Agent("other", lease=1.0)

    @other.on("news")
    async def news(_: object) -> None: ...

    did: list[str] = []
    await serve(other)
    await serve(translator("willing", None, did, []))
    await everybody_knows(mesh, 2)
    assert await (await mesh.enqueue("translate", text="hi", to="other")).result(timeout=10) == "HI"


async def test_what_nobody_offers_is_a_dead_letter_that_says_so(mesh: Mesh, serve: Serve) -> None:
    other = Agent("other", lease=1.0)

    @other.on("news")
    async def news(_: object) -> None: ...

    await serve(other)
    task = await mesh.enqueue("translate", text="hi", to="other")
    with pytest.raises(TaskDead, match="no live agent offers translate"):
        await task.result(timeout=10)
    assert (await task.record()).fields["reason"] == "no_capable_agent"
    (letter,) = [one async for one in mesh.dead.letters("translate")]
    await mesh.dead.remove(letter)


async def test_a_refusal_by_all_ends_before_the_deadline(mesh: Mesh, serve: Serve) -> None:
    await serve(translator("tired", False, [], []))
    await everybody_knows(mesh, 1)
    task = await mesh.enqueue("translate", text="hi", deadline=2.0)
    with pytest.raises(TaskDead, match="its deadline would pass before translate could be offered again"):
        await task.result(timeout=10)
    (letter,) = [one async for one in mesh.dead.letters("translate")]
    await mesh.dead.remove(letter)


async def test_a_deferred_task_comes_again(mesh: Mesh, serve: Serve) -> None:
    did: list[str] = []
    asked: list[str] = []
    await serve(translator("later", lambda _: Defer(0.1) if len(asked) < 3 else True, did, asked))
    task = await mesh.enqueue("translate", text="hi")
    assert await task.result(timeout=10) == "HI"
    assert (len(asked), len(did)) == (3, 1)
    assert (await task.record()).fields.get("failures", "0") == "0"


async def test_a_handler_may_refuse_by_itself(mesh: Mesh, serve: Serve) -> None:
    tired, fresh = Agent("tired", lease=1.0), Agent("fresh", lease=1.0)

    @tired.capability("dig")
    async def no() -> None:
        raise Refuse("broken spade")

    @fresh.capability("dig")
    async def yes() -> str:
        return "dug"

    await asyncio.gather(serve(tired), serve(fresh))
    await everybody_knows(mesh, 2)
    assert await (await mesh.enqueue("dig", to="tired")).result(timeout=10) == "dug"


def test_one_can_handle_for_each_capability() -> None:
    agent = Agent("one")
    agent.can_handle("x")(lambda payload, load: True)
    with pytest.raises(ConfigError, match="has a can_handle for capability 'x' already"):
        agent.can_handle("x")(lambda payload, load: True)
