"""Histories made by hand: a short way to write them, and the good ones, which no checker may complain about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.chaos.checker import FINAL, Report, check
from tests.chaos.history import Event, Execution, Final

STREAM = "{mesh}:tasks:echo"


class Story:
    """A history in the making: one second passes with every line. `final` begins as what the lines lead to."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.records: dict[str, dict[str, str]] = {}
        self.entries: list[tuple[str, str, str]] = []
        self.pending: list[tuple[str, str, str]] = []
        self.due: list[str] = []
        self.letters: list[tuple[str, str]] = []
        self.ttls: dict[str, int | None] = {}
        self.ledger: list[Execution] = []
        self.effects: dict[str, int] = {}
        self.now = 0.0

    def line(
        self, op: str, phase: str, id: str, process: str = "client", redis: int | None = None, **data: Any
    ) -> None:
        self.now += 1
        self.events.append(Event(self.now, process, op, phase, id, redis, data))

    def enqueue(self, id: str, answer: str = "ok", created: bool = True, **data: Any) -> None:
        self.line("enqueue", "invoke", id, **data)
        if answer == "ok":
            self.line("enqueue", "ok", id, created=created)
        elif answer:
            self.line("enqueue", answer, id)

    def start(self, id: str, attempt: int, agent: str, redis: int | None = None, **data: Any) -> None:
        self.line("start", "ok", id, agent, redis, attempt=attempt, agent=agent, **data)
        self.ledger.append(Execution(id, attempt, agent))

    def settle(self, id: str, attempt: int, agent: str, verb: str, word: str = "ok", value: str = '"done"') -> None:
        self.line("end", "ok", id, agent, attempt=attempt, agent=agent)
        self.line("settle", "invoke", id, agent, attempt=attempt, agent=agent, verb=verb, value=value)
        phase = {"ok": "ok", "stale": "fail"}.get(word, "info")
        self.line("settle", phase, id, agent, attempt=attempt, agent=agent, word=word)

    def fault(self, kind: str, target: str, seconds: float = 0.0) -> None:
        self.line(
            "fault", "ok", "", "driver", kind=kind, target=target, begun=self.now + 1, ended=self.now + 1 + seconds
        )

    def record(self, id: str, state: str, agent: str = "", attempt: int = 0, **fields: str) -> None:
        self.records[id] = {"state": state, "agent": agent, "attempt": str(attempt), "entry": "1-1", **fields}
        self.ttls[f"{{mesh}}:task:{id}"] = 60_000 if state in FINAL else None
        if state == "succeeded":
            self.records[id] |= {"result": fields.get("result", '"done"')}
            self.effects[id] = 1
        if state == "dead":
            self.letters.append(("echo", id))

    def done(self, id: str = "t", attempt: int = 1, agent: str = "a.1") -> Story:
        """The usual end."""
        self.settle(id, attempt, agent, "complete")
        self.record(id, "succeeded", agent, attempt)
        return self

    def judge(self, **options: Any) -> Report:
        final = Final(self.records, self.entries, self.pending, self.due, self.letters, self.ttls)
        return check(self.events, final, self.ledger, self.effects, **options)


def begun(attempt: int = 1, agent: str = "a.1") -> Story:
    """Enqueued and started."""
    story = Story()
    story.enqueue("t")
    story.start("t", attempt, agent)
    return story


# -- good histories ----------------------------------------------------------------------------------------------------


def plain() -> Story:
    return begun().done()


def retried() -> Story:
    story = begun()
    story.settle("t", 1, "a.1", "fail")
    story.start("t", 2, "b.2")
    return story.done(attempt=2, agent="b.2")


def killed() -> Story:
    story = begun()
    story.fault("kill", "a.1")
    story.start("t", 2, "b.2")
    return story.done(attempt=2, agent="b.2")


def killed_before_it_noted_anything() -> Story:
    story = begun()
    story.ledger.append(Execution("t", 2, "b.2"))
    story.fault("kill", "b.2")
    story.line("enqueue", "invoke", "other", "b.2")  # the process is known by its other lines
    story.fault("kill", "a.1")
    story.start("t", 3, "c.3")
    return story.done(attempt=3, agent="c.3")


def zombie() -> Story:
    story = begun()
    story.fault("pause", "a.1", 3)
    story.start("t", 2, "b.2")
    story.done(attempt=2, agent="b.2")
    story.settle("t", 1, "a.1", "complete", "stale")
    return story


def zombie_that_starts_late() -> Story:
    story = Story()
    story.enqueue("t")
    story.fault("pause", "a.1", 7)
    story.start("t", 2, "b.2", redis=2000)
    story.done(attempt=2, agent="b.2")
    story.start("t", 1, "a.1", redis=9000)
    story.settle("t", 1, "a.1", "complete", "stale")
    return story


def lost_reply_of_settle() -> Story:
    story = begun()
    story.settle("t", 1, "a.1", "complete", "")
    story.settle("t", 1, "a.1", "complete", "ok")
    story.record("t", "succeeded", "a.1", 1)
    return story


def nobody_heard_of_the_settle() -> Story:
    story = begun()
    story.settle("t", 1, "a.1", "complete", "")
    story.record("t", "succeeded", "a.1", 1)
    return story


def unknown_enqueues() -> Story:
    story = Story()
    story.enqueue("never", "info")
    story.enqueue("cut", "")
    story.enqueue("done", "info")
    story.enqueue("done", "ok", created=False)
    story.start("done", 1, "a.1")
    return story.done("done")


def refused() -> Story:
    story = plain()
    story.enqueue("no", "fail")
    return story


def cancelled_in_the_queue() -> Story:
    story = Story()
    story.enqueue("t")
    story.line("cancel", "invoke", "t")
    story.record("t", "cancelled")
    return story


def poison() -> Story:
    story = begun()
    for attempt, agent in ((2, "b.2"), (3, "c.3")):
        story.fault("kill", story.ledger[-1].agent)
        story.start("t", attempt, agent)
    story.fault("kill", "c.3")
    story.record("t", "dead", "c.3", 3, reason="poison")
    return story


def replayed() -> Story:
    story = begun()
    story.settle("t", 1, "a.1", "dead")
    story.line("replay", "invoke", "t")
    story.line("replay", "ok", "t")
    story.start("t", 2, "a.1")
    return story.done(attempt=2)


def told_the_truth() -> Story:
    story = plain()
    story.line("result", "ok", "t", state="succeeded", value="done")
    return story


def server_restarted() -> Story:
    story = begun()
    story.fault("server_kill", "server", 2)
    story.start("t", 2, "b.2")
    story.done(attempt=2, agent="b.2")
    story.settle("t", 1, "a.1", "complete", "stale")
    return story


def in_order_and_on_time() -> Story:
    story = Story()
    for number in (1, 2, 3):
        id = f"t{number}"
        story.enqueue(id, due=5000 if number == 1 else None)
        story.start(id, 1, "a.1", redis=5000 + number, stream=STREAM, entry=f"9-{number * 5}")
        story.done(id)
    return story


GOOD: list[Callable[[], Story]] = [
    plain, retried, killed, killed_before_it_noted_anything, zombie, zombie_that_starts_late, lost_reply_of_settle,
    nobody_heard_of_the_settle, unknown_enqueues, refused, cancelled_in_the_queue, poison, replayed, told_the_truth,
    server_restarted, in_order_and_on_time,
]  # fmt: skip
