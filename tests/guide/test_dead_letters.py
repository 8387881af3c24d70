"""What could not be done is kept with its payload and its cause, until somebody runs it again or takes it away."""

from __future__ import annotations

import pytest

from streammesh import Agent, Mesh
from streammesh.errors import TaskDead
from streammesh.testing import run_until_idle


def press(broken: list[bool]) -> Agent:
    agent = Agent("press")

    @agent.capability("print", retries=1)
    async def print_(text: str) -> str:
        if broken:
            raise RuntimeError("out of ink")
        return f"printed {text}"

    return agent


async def test_a_dead_letter_says_what_why_and_by_whom(mesh: Mesh) -> None:
    await mesh.enqueue("print", {"text": "A"}, id="print-1")
    await run_until_idle(mesh, press(broken=[True]))
    assert await mesh.dead.counts() == {"print": 1}
    (letter,) = [one async for one in mesh.dead.letters("print")]
    assert (letter.id, letter.payload, letter.reason, letter.attempts) == ("print-1", '{"text":"A"}', "attempts", 2)
    assert letter.error == "RuntimeError: out of ink"
    assert letter.agent.startswith("press.")


async def test_a_replay_is_the_same_task_with_a_fresh_budget(mesh: Mesh) -> None:
    broken = [True]
    task = await mesh.enqueue("print", {"text": "A"}, id="print-1")
    await run_until_idle(mesh, press(broken))
    with pytest.raises(TaskDead):
        await task.result()

    (letter,) = [one async for one in mesh.dead.letters()]
    assert await mesh.dead.replay(letter) == "ok print-1"
    report = await run_until_idle(mesh, press(broken))
    assert (report.attempts, report.dead) == (2, 1)  # still broken: again two attempts

    broken.clear()
    (letter,) = [one async for one in mesh.dead.letters()]
    await mesh.dead.replay(letter)
    await run_until_idle(mesh, press(broken))
    assert await task.result() == "printed A"
    assert await mesh.dead.counts() == {}
    assert await mesh.dead.replay(letter) == "missing"


async def test_letters_are_chosen_by_their_error(mesh: Mesh) -> None:
    await mesh.enqueue_many("print", [{"text": "A"}, {"words": "B"}, {"text": "C"}])
    await run_until_idle(mesh, press(broken=[True]))
    async for letter in mesh.dead.letters("print", error="out of ink"):
        await mesh.dead.replay(letter)
    assert await mesh.dead.counts() == {"print": 1}
    assert (await run_until_idle(mesh, press(broken=[]))).succeeded == 2


async def test_a_letter_may_be_thrown_away(mesh: Mesh) -> None:
    task = await mesh.enqueue("print", text="A")
    await run_until_idle(mesh, press(broken=[True]))
    (letter,) = [one async for one in mesh.dead.letters()]
    assert await mesh.dead.remove(letter)
    assert not await mesh.dead.remove(letter)
    assert await mesh.dead.counts() == {}
    with pytest.raises(TaskDead, match="out of ink"):  # the record remembers for a while
        await task.result()


async def test_enqueueing_a_dead_id_again_does_not_bring_it_back(mesh: Mesh) -> None:
    """Whether it is worth another try is for somebody to decide who has seen the cause."""
    await mesh.enqueue("print", {"text": "A"}, id="print-1")
    await run_until_idle(mesh, press(broken=[True]))
    again = await mesh.enqueue("print", {"text": "A"}, id="print-1")
    assert not again.created
    with pytest.raises(TaskDead):
        await again.result()
