"""`task`: lists, records, waiting, cancelling, running again, following."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.cli.conftest import Cli, Spawner
from tests.eventually import eventually_sync


@pytest.fixture
def held(shop: Cli, request: pytest.FixtureRequest) -> Iterator[str]:
    """A task that runs until it is cancelled."""
    id = f"held-{request.node.name.partition('[')[0]}"
    shop.ok("enqueue", "hold", "seconds:=60", "--id", id)
    eventually_sync(lambda: shop.state(id) == "running")
    yield id
    shop("task", "cancel", id)


def test_ls_shows_every_state_newest_first(shop: Cli, held: str) -> None:
    shop.ok("enqueue", "greet", "name=x", "--id", "ls-delayed", "--in", "1h")
    shop("call", "refuse", "--id", "ls-failed")
    shop("call", "broken", "--id", "ls-dead")
    shop.ok("call", "greet", "name=x", "--id", "ls-done")
    shop.ok("enqueue", "nobody-offers-this", "--id", "ls-queued")
    listed = {one["id"]: one for one in shop.ok("task", "ls", "--json").objects}
    assert {id: listed[id]["state"] for id in listed if id.startswith("ls-")} == {
        "ls-delayed": "delayed", "ls-failed": "failed", "ls-dead": "dead", "ls-done": "succeeded", "ls-queued": "queued",
    }  # fmt: skip
    assert listed[held]["state"] == "running"
    newest_first = shop.ok("task", "ls", "-q").lines
    assert newest_first.index("ls-queued") < newest_first.index("ls-done") < newest_first.index("ls-delayed")
    text = shop.ok("task", "ls").out
    assert text.splitlines()[0].split() == ["ID", "STATE", "CAPABILITY", "ATTEMPT", "AGENT", "ENQUEUED"]
    assert "the shop is closed" in text
    assert shop.ok("task", "ls", "-q", "--state", "dead").lines == ["ls-dead"]
    assert set(shop.ok("task", "ls", "-q", "--state", "open").lines) >= {"ls-queued", "ls-delayed", held}
    assert shop.ok("task", "ls", "-q", "-c", "greet").lines == ["ls-done", "ls-delayed"]
    limited = shop("task", "ls", "-q", "--limit", "2")
    assert len(limited.lines) == 2
    assert "--limit shows more" in shop("task", "ls", "--limit", "2").err


def test_ls_and_explain_know_what_a_bare_xadd_brought(cli: Cli) -> None:
    cli.ok("enqueue", "byhand", "--id", "first")
    stream = f"{{{cli.namespace}}}:tasks:byhand"
    cli.redis("XADD", stream, "*", "payload", '{"a":1}')
    raw, first = cli.ok("task", "ls", "-q").lines
    assert first == "first"
    assert raw.startswith("r")
    assert "no live agent offers byhand" in cli.ok("task", "explain", raw).out


def test_ls_of_nothing(cli: Cli) -> None:
    assert cli.ok("task", "ls").out == ""
    assert "no tasks" in cli("task", "ls").err
    assert cli.ok("task", "ls", "--json").objects == []


def test_show_is_the_whole_record(shop: Cli) -> None:
    shop.ok("call", "greet", "name=Ada", "--id", "shown")
    record = shop.ok("task", "show", "shown", "--json").json
    assert (record["id"], record["state"], record["result"], record["attempt"]) == (
        "shown",
        "succeeded",
        {"hello": "Ada"},
        1,
    )
    text = shop.ok("task", "show", "shown").out
    for word in (
        "state",
        "succeeded",
        'payload      {"name": "Ada"}',
        'result       {"hello": "Ada"}',
        "finished_at",
        "took",
    ):
        assert word in text
    assert shop.ok("task", "show", "shown", "--time", "ms").out != text
    assert " ago" in shop.ok("task", "show", "shown", "--time", "relative").out
    assert len(shop.ok("task", "show", "shown", "shown", "--json").objects) == 2


@pytest.mark.parametrize("verb", ["show", "wait", "cancel", "retry", "explain", "tail"])
def test_a_task_that_is_not_there_is_exit_4(shop: Cli, verb: str) -> None:
    outcome = shop("task", verb, "nowhere")
    assert (outcome.code, outcome.out) == (4, "")
    assert "there is no task nowhere" in outcome.err


def test_wait_prints_results_and_the_worst_decides(shop: Cli, held: str) -> None:
    shop.ok("call", "greet", "name=a", "--id", "w1")
    shop("call", "refuse", "--id", "w2")
    assert shop.ok("task", "wait", "w1").json == {"hello": "a"}
    both = shop("task", "wait", "w1", "w2", "--json")
    assert (both.code, [one["state"] for one in both.objects]) == (1, ["succeeded", "failed"])
    late = shop("task", "wait", held, "--timeout", "100ms")
    assert late.code == 5
    assert "no outcome after 0.1 s" in late.err


def test_cancel_a_waiting_a_running_and_a_finished_one(shop: Cli, held: str) -> None:
    shop.ok("enqueue", "greet", "name=x", "--id", "c-delayed", "--in", "1h")
    assert shop.ok("task", "cancel", "c-delayed").out == "c-delayed\n"
    assert shop.state("c-delayed") == "cancelled"
    asked = shop("task", "cancel", held)
    assert (asked.code, asked.out) == (0, f"{held}\n")
    assert "asked shop." in asked.err
    eventually_sync(lambda: shop.state(held) == "cancelled")
    closed = shop("task", "cancel", held)
    assert closed.code == 6
    assert "has ended already (cancelled)" in closed.err
    assert shop("task", "cancel", held, "--json").json["verdict"] == "closed"
    assert shop("task", "wait", held).code == 1


def test_retry_a_finished_and_an_open_one(shop: Cli, held: str) -> None:
    shop("call", "broken", "--id", "r1")
    assert shop.ok("task", "retry", "r1").out == "r1\n"
    eventually_sync(lambda: shop.state("r1") == "dead")
    refused = shop("task", "retry", held)
    assert refused.code == 6
    assert "has not ended (running)" in refused.err


def test_tail_follows_one_task_until_it_has_ended(shop: Cli) -> None:
    shop.ok("enqueue", "hold", "seconds:=1.5", "--id", "followed")
    seen = shop("task", "tail", "followed", "--json")
    assert seen.code == 0
    assert seen.objects[-1]["result"] == "held"
    assert any("progress" in one for one in seen.objects)
    assert shop("task", "tail", "followed").out.splitlines()[-1].startswith("succeeded")
    shop("call", "refuse", "--id", "refused")
    assert shop("task", "tail", "refused").code == 1


def test_tail_shows_past_events_and_goes_on(shop: Cli, spawn: Spawner) -> None:
    shop("call", "broken", "text=\x1b[31m", "--id", "loud")
    past = shop.ok("task", "tail", "--no-follow", "--since", "1h")
    assert "task.dead" in past.out
    assert "cannot do this: \\x1b[31m" in past.out
    kinds = {one["type"] for one in shop.ok("task", "tail", "-F", "--json").objects}
    assert {"agent.joined", "task.dead"} <= kinds
    assert {one["capability"] for one in shop.ok("task", "tail", "-F", "--json", "-c", "broken").objects} == {"broken"}
    tail = spawn("-u", shop.url, "-N", shop.namespace, "task", "tail", "--json")

    def told() -> bool:
        shop("call", "refuse")
        return "the shop is closed" in tail.out

    eventually_sync(told, timeout=20)
    tail.send(signal.SIGINT)
    assert tail.ends() == 130
