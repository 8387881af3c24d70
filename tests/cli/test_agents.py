"""`agents` and `caps`: who is here, whether they answer, draining, pausing."""

from __future__ import annotations

import os
import signal

from tests.cli.conftest import APP, Cli, Spawner
from tests.eventually import eventually_sync


def test_ls_show_and_ping(shop: Cli) -> None:
    (agent,) = shop.ok("agents", "ls", "--json").objects
    assert (agent["id"], agent["state"], agent["slots"], agent["lease"]) == ("shop.1", "ready", 2, 2.0)
    assert {"greet", "hold"} <= set(agent["capabilities"])
    assert agent["types"] == ["gossip", "info", "ping", "stats"]
    heads, row = shop.ok("agents", "ls").lines
    assert heads.split() == ["AGENT", "STATE", "BUSY", "BEAT", "LEASE", "HOST", "PID", "CAPABILITIES"]
    assert row.startswith("shop.1  ready ")
    assert shop.ok("agents", "ls", "-q", "-c", "greet").lines == ["shop.1"]
    assert shop.ok("agents", "ls", "-q", "-c", "other").lines == []
    assert f"pid           {agent['pid']}" in shop.ok("agents", "show", "shop").out
    shown = shop.ok("agents", "show", "shop.1", "--json").json
    assert shown["pid"] == agent["pid"]
    assert "takes: name, times?" in next(skill for skill in shown["skills"] if skill["id"] == "greet")["tags"]
    assert "greet  [takes: name, times?]  Says hello." in shop.ok("agents", "show", "shop").out
    pong = shop.ok("agents", "ping", "--json").json
    assert (pong["id"], pong["ok"]) == ("shop.1", True)
    assert 0 < pong["ms"] < 5000
    assert shop.ok("agents", "ping", "shop").out.startswith("shop.1  ")


def test_show_names_what_an_agent_holds(shop: Cli) -> None:
    shop.ok("enqueue", "hold", "seconds:=60", "--id", "heldbyshop")
    eventually_sync(lambda: shop.ok("agents", "show", "shop", "--json").json["holds"] == ["heldbyshop"])
    shop("task", "cancel", "heldbyshop")


def test_an_agent_that_is_not_there(cli: Cli, shop: Cli) -> None:
    for verb in ("show", "ping", "drain"):
        outcome = shop("agents", verb, "shpo")
        assert (outcome.code, outcome.out) == (4, "")
        assert "no live agent has the id or name 'shpo'; alive: shop.1" in outcome.err
    assert cli("agents", "ping").code == 4
    nobody = cli("agents", "ls")
    assert (nobody.code, nobody.out) == (0, "")
    assert "start one: streammesh agent --app" in nobody.err


def test_an_agent_that_does_not_answer_is_exit_1(cli: Cli, spawn: Spawner) -> None:
    agent = spawn("agent", "--app", APP)
    agent.says(" ready ")
    agent.send(signal.SIGSTOP)
    try:
        outcome = cli("agents", "ping", "--timeout", "300ms")
        assert outcome.code == 1
        assert "shop.1  no answer: shop.1 did not answer 'ping' within 0.3 s" in outcome.out
    finally:
        agent.send(signal.SIGCONT)


def test_drain_waits_until_it_has_left(cli: Cli, spawn: Spawner) -> None:
    agent = spawn("agent", "--app", APP)
    agent.says(" ready ")
    cli.ok("enqueue", "hold", "seconds:=1", "--id", "last")
    eventually_sync(lambda: cli.state("last") == "running")
    assert cli.ok("agents", "drain", "shop", "--wait", "--timeout", "20s").out == "shop.1  left\n"
    assert agent.ends() == 0
    record = cli.ok("task", "show", "last", "--json").json
    assert (record["state"], record["attempt"]) == ("succeeded", 1)
    gone = cli.ok("agents", "ls", "--gone", "1h", "--json").json
    assert (gone["id"], gone["state"]) == ("shop.1", "left")
    assert "shop.1  left" in cli.ok("agents", "ls", "--gone", "1h").out


def test_drain_that_takes_too_long_is_exit_5(cli: Cli, spawn: Spawner) -> None:
    spawn("agent", "--app", APP, "--grace", "20s").says(" ready ")
    cli.ok("enqueue", "hold", "seconds:=60", "--id", "long")
    eventually_sync(lambda: cli.state("long") == "running")
    outcome = cli("agents", "drain", "shop", "--wait", "--timeout", "200ms", "--json")
    assert (outcome.code, outcome.json) == (5, {"id": "shop.1", "state": "draining"})
    assert "still draining after 0.2s: shop.1" in outcome.err
    cli.ok("task", "cancel", "long")


def test_caps_are_listed_with_what_they_take(shop: Cli) -> None:
    listed = {one["capability"]: one for one in shop.ok("caps", "ls", "--json").objects}
    assert listed["greet"]["takes"] == "name, times?"
    assert (listed["greet"]["agents"], listed["greet"]["paused_by"]) == (1, None)
    assert "Says hello." in shop.ok("caps", "ls").out
    assert "greet" in shop.ok("caps", "ls", "-q").lines


def test_pause_holds_and_resume_lets_go(shop: Cli) -> None:
    assert shop.ok("caps", "pause", "greet", "--by", "ada").out == "greet\n"
    again = shop("caps", "pause", "greet", "--by", "ada", "--json")
    assert again.json == {"capability": "greet", "paused": True, "changed": False}
    assert "was paused already" in again.err
    shop.ok("enqueue", "greet", "name=x", "--id", "p")
    assert "‖ paused by ada" in shop.ok("caps", "ls").out
    assert "‖ paused by ada" in shop.ok("info", "--sample", "0").out
    assert shop.state("p") == "queued"
    assert shop.ok("caps", "resume", "greet").out == "greet\n"
    eventually_sync(lambda: shop.state("p") == "succeeded")
    assert "was not paused" in shop("caps", "resume", "greet").err


def test_a_capability_that_is_not_there(cli: Cli, shop: Cli) -> None:
    for verb in ("pause", "resume"):
        outcome = shop("caps", verb, "hold", "gret")
        assert (outcome.code, outcome.out) == (4, "")
        assert "no capability gret; did you mean greet?" in outcome.err
    assert cli("caps", "pause", "greet").code == 4
    assert "no capabilities yet" in cli("caps", "ls").err


def test_the_process_that_answers_is_the_one_that_is_listed(shop: Cli) -> None:
    pid = shop.ok("agents", "ls", "--json").json["pid"]
    os.kill(pid, 0)


#: What the A2A specification 0.3.0 requires of an AgentCard and of its skills, with their JSON types.
CARD = {
    "protocolVersion": str, "name": str, "description": str, "url": str, "version": str, "capabilities": dict,
    "defaultInputModes": list, "defaultOutputModes": list, "skills": list,
}  # fmt: skip
SKILL = {"id": str, "name": str, "description": str, "tags": list}


def test_the_card_is_an_a2a_agent_card(shop: Cli) -> None:
    card = shop.ok("agents", "card", "shop").json
    assert {name: type(value) for name, value in card.items()} == CARD
    assert card["skills"]
    for skill in card["skills"]:
        assert {name: type(value) for name, value in skill.items()} == SKILL
        assert all(isinstance(tag, str) for tag in skill["tags"])
    assert (card["name"], card["url"].endswith("/shop.1")) == ("shop", True)
    assert "greet" in [skill["id"] for skill in card["skills"]]
    assert not any(card["capabilities"].values()), "nothing is claimed that is not there"
    assert shop("agents", "card", "nobody").code == 4


def test_members_tells_who_came_and_went(shop: Cli) -> None:
    first, *_ = shop.ok("agents", "members", "--json").objects
    assert (first["type"], first["reason"], first["agent"]) == ("joined", "new", "shop.1")
    later = shop.ok("agents", "members", "--json", "--since", first["cursor"]).objects
    assert first not in later
    assert shop.ok("agents", "members").lines[0].split() == ["PLACE", "WHAT", "AGENT", "REASON", "CAPABILITIES"]


def test_evict_takes_an_id_and_says_what_it_did(shop: Cli) -> None:
    assert shop("agents", "evict", "shop").code == 4, "a name is not enough"
    assert shop.ok("agents", "evict", "shop.1", "--json").json == {"id": "shop.1", "state": "evicted"}
    last = shop.ok("agents", "members", "--json").objects[-1]
    assert (last["agent"], last["type"], last["reason"]) == ("shop.1", "died", "evicted")
