"""The table of states in streammesh/lua/README.md: each arrow is walked here, and the scripts write no state that it lacks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import streammesh
from streammesh.record import State
from tests.lua.shard import LEASE, Claimed, Outcome, Shard, cancelled, complete, dead, expire, fail, reject, release

LUA = Path(streammesh.__file__).parent / "lua"
Arrow = tuple[str, str, str]


def table() -> list[Arrow]:
    """(from, to, script) of every row."""
    rows = re.findall(r"^\| (\w+) \| (\w+) \| (\w+) \|", (LUA / "README.md").read_text(), re.M)
    return [row for row in rows if row[0] != "from"]


def run_of(shard: Shard, verb: Callable[..., Outcome], **options: str) -> None:
    shard.settle("ann.1", verb(shard.running("a", **options)))


def orphan(shard: Shard, **options: dict[str, str]) -> None:
    shard.running("a", "ann.1", **options)
    shard.crash("ann.1")


def take_over(shard: Shard) -> None:
    shard.claim("bob.2", orphans=[("tasks:x", "ann.1")])


def inbox_chosen(shard: Shard) -> None:
    shard.new("a", to="ann.1", extra={"chosen": "1"})


def inbox(shard: Shard) -> None:
    shard.new("a", to="ann.1")


def raw_inbox(shard: Shard) -> None:
    shard.raw("inbox:ann.1", id="a", payload="{}", capability="x")


def inbox_running(shard: Shard) -> None:
    inbox(shard)
    shard.take("ann.1")


def claimed_and_unknown(shard: Shard) -> None:
    shard.running("a")
    shard.age("ann.1")


def read_and_unknown(shard: Shard) -> None:
    shard.new("a")
    shard.open()
    shard.read()
    shard.age("ann.1")


def to_be_cancelled_and_back(shard: Shard) -> None:
    claimed_and_unknown(shard)
    shard.cancel("a")
    shard.renew()


def raw(shard: Shard, **fields: str) -> None:
    shard.open()
    shard.raw(id="a", payload="{}", **fields)


def poisonous(shard: Shard) -> None:
    orphan(shard)
    shard.redis.hset(shard.key("task:a"), "deaths", "2")


def late_orphan(shard: Shard) -> None:
    raw(shard, deadline=str(shard.now() + 100))
    shard.take("ann.1")
    shard.crash("ann.1")


def take_over_late(shard: Shard) -> None:
    while shard.now() < int(shard.record("a")["deadline"]):
        pass
    take_over(shard)


def cancelled_orphan(shard: Shard) -> None:
    orphan(shard)
    shard.cancel("a")


def letter_without_record(shard: Shard) -> None:
    run_of(shard, dead)
    shard.redis.delete(shard.key("task:a"))


Step = Callable[[Shard], object]


def settles(verb: Callable[..., Outcome]) -> tuple[Step, Step]:
    held: list[Claimed] = []
    return (lambda shard: held.append(shard.running("a"))), (lambda shard: shard.settle("ann.1", verb(held.pop())))


def retries(verb: Callable[..., Outcome]) -> tuple[Step, Step]:
    return (lambda shard: run_of(shard, verb)), (lambda shard: shard.retry("a"))


#: How each arrow is walked: to where it begins, and along it.
WALKS: dict[Arrow, tuple[Step, Step]] = {
    ("gone", "queued", "task_enqueue"): (lambda shard: None, lambda shard: shard.new("a")),
    ("gone", "delayed", "task_enqueue"): (lambda shard: None, lambda shard: shard.new("a", when="+5000")),
    ("gone", "running", "task_claim"): (raw, lambda shard: shard.take()),
    ("gone", "expired", "task_claim"): (lambda shard: raw(shard, deadline="1"), lambda shard: shard.claim()),
    ("gone", "queued", "inbox_drain"): (raw_inbox, lambda shard: shard.drain("ann.1", "x")),
    ("gone", "dead", "inbox_drain"): (raw_inbox, lambda shard: shard.drain("ann.1")),
    ("gone", "queued", "task_retry"): (letter_without_record, lambda shard: shard.replay(next(iter(shard.entries("dead:x"))))),
    ("queued", "running", "task_claim"): (lambda shard: shard.new("a"), lambda shard: shard.take()),
    ("queued", "expired", "task_claim"): (lambda shard: shard.new("a", extra={"deadline": "1"}), lambda shard: shard.claim()),
    ("queued", "cancelled", "task_claim"): (to_be_cancelled_and_back, lambda shard: shard.claim()),
    ("queued", "cancelled", "task_cancel"): (lambda shard: shard.new("a"), lambda shard: shard.cancel("a")),
    ("queued", "queued", "task_renew"): (read_and_unknown, lambda shard: shard.renew()),
    ("queued", "queued", "inbox_drain"): (inbox, lambda shard: shard.drain("ann.1", "x")),
    ("queued", "queued", "inbox_hand_on"): (inbox_chosen, lambda shard: shard.hand_on("ann.1", *shard.waiting("ann.1")[0][:2], "")),
    ("queued", "dead", "inbox_drain"): (inbox, lambda shard: shard.drain("ann.1")),
    ("delayed", "queued", "due_fire"): (lambda shard: shard.new("a", when="1"), lambda shard: shard.fire()),
    ("delayed", "cancelled", "task_cancel"): (lambda shard: shard.new("a", when="1"), lambda shard: shard.cancel("a")),
    ("running", "succeeded", "task_settle"): settles(complete),
    ("running", "failed", "task_settle"): settles(reject),
    ("running", "cancelled", "task_settle"): settles(cancelled),
    ("running", "expired", "task_settle"): settles(expire),
    ("running", "dead", "task_settle"): settles(dead),
    ("running", "delayed", "task_settle"): settles(fail),
    ("running", "queued", "task_settle"): settles(release),
    ("running", "running", "task_cancel"): (lambda shard: shard.running("a"), lambda shard: shard.cancel("a")),
    ("running", "running", "task_claim"): (orphan, take_over),
    ("running", "dead", "task_claim"): (poisonous, take_over),
    ("running", "expired", "task_claim"): (late_orphan, take_over_late),
    ("running", "cancelled", "task_claim"): (cancelled_orphan, take_over),
    ("running", "queued", "task_renew"): (claimed_and_unknown, lambda shard: shard.renew()),
    ("running", "queued", "inbox_drain"): (inbox_running, lambda shard: shard.drain("ann.1", "x")),
    ("running", "dead", "inbox_drain"): (inbox_running, lambda shard: shard.drain("ann.1")),
    ("succeeded", "queued", "task_retry"): retries(complete),
    ("failed", "queued", "task_retry"): retries(reject),
    ("cancelled", "queued", "task_retry"): retries(cancelled),
    ("expired", "queued", "task_retry"): retries(expire),
    ("dead", "queued", "task_retry"): retries(dead),
}  # fmt: skip


def test_the_table_has_these_arrows_and_each_once() -> None:
    assert sorted(table()) == sorted(WALKS)
    assert {state for arrow in table() for state in arrow[:2]} == {*State, "gone"}


@pytest.mark.parametrize("arrow", WALKS, ids="-".join)
def test_an_arrow(shard: Shard, arrow: Arrow) -> None:
    begin, end, _ = arrow
    to_where_it_begins, along = WALKS[arrow]
    to_where_it_begins(shard)
    before = shard.record("a")
    assert before.get("state", "gone") == begin
    along(shard)
    after = shard.record("a")
    assert after["state"] == end
    assert after != before
    # Exactly one thing will bring an unfinished task home, and nothing is left of a finished one.
    entries = [id for stream in ("tasks:x", "inbox:ann.1") for id in shard.entries(stream).values() if id["id"] == "a"]
    assert len(entries) == (1 if end in ("queued", "running") else 0)
    assert list(shard.due()) == (["a"] if end == "delayed" else [])


@pytest.mark.parametrize("path", sorted(LUA.glob("*.lua")), ids=lambda path: path.stem)
def test_a_script_writes_the_states_that_the_table_says(path: Path) -> None:
    if path.stem.startswith(("prelude", "run_", "vote_", "auction_", "schedule_")):
        return  # what scripts share, and what moves other things than tasks: those have states of their own
    assert written(path.read_text()) == {end for _, end, script in table() if script == path.stem} - only_kept(
        path.stem
    )


def written(text: str) -> set[str]:
    """The states that a script's words can write: its own, and those of the prelude's functions that it calls."""
    code = re.sub(r"--.*", "", text)
    states = set(
        re.findall(
            r"'(\w+)'",
            "".join(
                re.findall(r"'state', '\w+'|finish\([^)]*\)|ends\b.*= \{.*|leads = \{.*|record\[2\] = '\w+'", code)
            ),
        )
    )
    states &= set(State)
    if re.search(r"\b(put|adopt|hand_on)\(", code):
        states.add("queued")
    if re.search(r"\benqueue\(", code):
        states |= {"queued", "delayed"}
    if re.search(r"\bcancel\(", code):
        states.add("cancelled")
    if re.search(r"\bbury\(", code):
        states.add("dead")
    return states - ({"queued"} if "adopt(" in code and "put(" not in code else set())


def only_kept(script: str) -> set[str]:
    """task_cancel leaves a running task in its state."""
    return {"running"} if script == "task_cancel" else set()


def test_every_arrow_to_a_stream_ends_dead_where_the_key_holds_another_type(shard: Shard) -> None:
    shard.new("a", when="1")
    shard.redis.set(shard.key("tasks:x"), "mine")
    shard.fire(ahead=LEASE)
    assert shard.record("a")["reason"] == "stream_unusable"
    shard.redis.delete(shard.key("tasks:x"))
