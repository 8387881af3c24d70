"""`task explain`: one causal line for every state that a task can be in."""

from __future__ import annotations

import signal

from tests.cli.conftest import APP, Cli, Spawner
from tests.eventually import eventually_sync


def explained(cli: Cli, id: str) -> tuple[str, str, str]:
    said = cli.ok("task", "explain", id, "--json").json
    assert cli.ok("task", "explain", id).out.startswith(f"{said['state']}: ")
    assert len(cli.ok("task", "explain", id).lines) == 1
    return said["state"], said["cause"], said["text"]


def test_what_has_ended(shop: Cli) -> None:
    shop.ok("call", "greet", "name=a", "--id", "done")
    state, word, text = explained(shop, "done")
    assert (state, word) == ("succeeded", "finished")
    assert "on shop." in text
    shop("call", "refuse", "--id", "refused")
    state, word, text = explained(shop, "refused")
    assert (state, word) == ("failed", "rejected")
    assert "its handler rejected it" in text
    assert text.endswith("the shop is closed")
    shop("call", "broken", "--id", "dead")
    state, word, text = explained(shop, "dead")
    assert (state, word) == ("dead", "dead")
    assert "it failed, and is not to be retried: ValueError: cannot do this" in text
    assert "streammesh dead replay dead" in text
    shop("call", "greet", "wrong=1", "--id", "invalid")
    assert "invalid payload" in explained(shop, "invalid")[2]
    shop.ok("enqueue", "greet", "--id", "gone", "--in", "1h")
    shop.ok("task", "cancel", "gone")
    assert explained(shop, "gone")[:2] == ("cancelled", "cancelled")
    shop("call", "hold", "seconds:=20", "--deadline", "200ms", "--id", "late")
    assert explained(shop, "late")[:2] == ("expired", "expired")


def test_what_is_delayed(shop: Cli) -> None:
    shop.ok("enqueue", "greet", "name=a", "--id", "later", "--in", "1h")
    state, word, text = explained(shop, "later")
    assert (state, word) == ("delayed", "delayed")
    assert "starts in 59m" in text or "starts in 1h00m" in text
    shop.ok("enqueue", "flaky", "--id", "again")
    eventually_sync(lambda: shop.state("again") == "delayed")
    assert "after error in attempt 1: ConnectionError: not now" in explained(shop, "again")[2]


def test_nobody_offers_it(cli: Cli) -> None:
    cli.ok("enqueue", "greet", "--id", "t")
    state, word, text = explained(cli, "t")
    assert (state, word) == ("queued", "nobody")
    assert text.endswith("no live agent offers greet")


def test_the_last_one_that_offered_it_is_named(cli: Cli, spawn: Spawner) -> None:
    agent = spawn("agent", "--app", APP, "--name", "lefty")
    agent.says(" ready ")
    agent.send(signal.SIGTERM)
    agent.ends()
    cli.ok("enqueue", "greet", "--id", "t")
    assert "no live agent offers greet (last: lefty.1, left " in explained(cli, "t")[2]
    agent = spawn("agent", "--app", APP, "--name", "dier")
    agent.says(" ready ")
    agent.popen.kill()
    cli.ok("enqueue", "hold", "--id", "t2")
    eventually_sync(lambda: "(last: dier.2, silent for " in explained(cli, "t2")[2])
    spawn("agent", "--app", "tests.cli.shop:other").says("found dier.2 dead")
    assert "(last: dier.2, died " in explained(cli, "t2")[2]


def test_paused_by_whom_and_since_when(shop: Cli) -> None:
    shop.ok("caps", "pause", "headers", "--by", "ada")
    outcome = shop("enqueue", "headers", "--id", "paused")
    assert "headers is paused by ada" in outcome.err
    state, word, text = explained(shop, "paused")
    assert (state, word) == ("queued", "paused")
    assert "capability headers is paused by ada " in text
    shop.ok("caps", "resume", "headers")
    eventually_sync(lambda: shop.state("paused") == "succeeded")


def test_all_slots_are_busy_and_an_inbox_waits(shop: Cli) -> None:
    for n in range(4):
        shop.ok("enqueue", "hold", "seconds:=60", "--id", f"busy{n}", "-q")
    shop.ok("enqueue", "hold", "seconds:=60", "--id", "mine", "--to", "shop", "-q")
    eventually_sync(lambda: explained(shop, "busy3")[1] == "busy")
    state, word, text = explained(shop, "busy3")
    assert (state, word) == ("queued", "busy")
    assert "its one agent shop.1 is busy (2 of 2 slots), 1 task before it" in text
    assert "it is for shop.1, which is busy (2 of 2 slots)" in explained(shop, "mine")[2]
    state, word, text = explained(shop, "busy0")
    assert (state, word) == ("running", "running")
    assert "on shop.1 for " in text
    assert "(attempt 1, last beat " in text
    shop("task", "cancel", "busy0", "busy1", "busy2", "busy3", "mine")


def test_the_lease_of_a_dead_agent(cli: Cli, spawn: Spawner) -> None:
    agent = spawn("agent", "--app", APP)
    agent.says(" ready ")
    cli.ok("enqueue", "hold", "seconds:=60", "--id", "t")
    eventually_sync(lambda: cli.state("t") == "running")
    agent.popen.kill()
    eventually_sync(lambda: explained(cli, "t")[1] == "lease_lost")
    state, _, text = explained(cli, "t")
    assert state == "running"
    assert "lease lost: shop.1, which ran it (attempt 1), beat last " in text
    assert "no live agent offers hold (last: shop.1, silent for " in text


def test_what_is_due_while_nobody_is_there(cli: Cli) -> None:
    cli.ok("enqueue", "greet", "--id", "t", "--in", "50ms")
    eventually_sync(lambda: explained(cli, "t")[1] == "due")
    assert "but no live agent is there to queue it" in explained(cli, "t")[2]


def test_it_would_start_at_once(cli: Cli) -> None:
    """Only for a moment on a healthy mesh: here an agent is registered that does not read."""
    cli.ok("enqueue", "greet", "--id", "t")
    prefix = f"{{{cli.namespace}}}:"
    now = cli.redis("TIME")[0]
    card: dict[str, str | int] = {"name": "ghost", "state": "ready", "slots": 4, "busy": 1, "capabilities": "greet"}
    cli.redis("HSET", f"{prefix}agent:ghost.9", *[word for pair in card.items() for word in pair])
    cli.redis("ZADD", f"{prefix}agents", f"{now}000", "ghost.9")
    state, word, text = explained(cli, "t")
    assert (state, word) == ("queued", "soon")
    assert "3 of 4 slots are free, 0 tasks before it" in text
    cli.redis("HSET", f"{prefix}agent:ghost.9", "state", "draining")
    assert explained(cli, "t")[1] == "draining"
    cli.redis("DEL", f"{prefix}agent:ghost.9")
