"""`gossip`: what agents tell each other, whether all know the same, and what `info` says of that; with processes that gossip."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import Iterator

import pytest

from streammesh import Mesh
from streammesh.cli.gossip import convergence
from tests.cli.conftest import Cli, Spawner
from tests.eventually import eventually_sync
from tests.servers import Server


@pytest.fixture(scope="module")
def chat(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A mesh with north.1, south.1 and west.1, which gossip."""
    namespace = f"t-{secrets.token_hex(5)}"
    spawner = Spawner(tmp_path_factory.mktemp("chat"), server.url, namespace)
    try:
        for process in [spawner("agent", "--app", f"tests.cli.chat:{name}") for name in ("north", "south", "west")]:
            process.says(" ready ")
        yield Cli(server.url, namespace)
    finally:
        spawner.close()


def ids(cli: Cli) -> dict[str, str]:
    return {one["name"]: one["id"] for one in cli.ok("agents", "ls", "--json").objects}


def test_what_is_set_on_one_is_known_everywhere_and_they_converge(chat: Cli) -> None:
    id = ids(chat)
    assert chat.ok("gossip", "set", "mood", '{"is": "good"}', "--agent", "north").out == f"{id['north']}\n"

    def known_at(place: str) -> bool:
        return (
            '"value": {"is": "good"}' in chat("gossip", "get", "mood", "--agent", "north", "--at", place, "--json").out
        )

    eventually_sync(lambda: known_at("south") and known_at("west"))
    assert chat.ok("gossip", "get", "mood", "--agent", "north").out == '{"is": "good"}\n'
    assert chat.ok("gossip", "get", "mood").lines[1].split(maxsplit=1) == [id["north"], '{"is": "good"}']
    assert chat.ok("gossip", "get", "mood", "--at", "west", "-q").lines == [id["north"]]
    assert chat.ok("gossip", "set", "mood", "so, so", "--agent", "north", "--json").json["value"] == "so, so"

    def agreed() -> bool:
        seen = chat.ok("gossip", "digest", "--json").json
        assert (seen["gossiping"], seen["distinct_root_hashes"], seen["converged"]) == (3, 1, True), seen
        return True

    eventually_sync(agreed, timeout=20)


def test_the_digest_names_owners_versions_and_who_is_behind(chat: Cli) -> None:
    id = ids(chat)

    def known() -> bool:
        seen = chat.ok("gossip", "digest", "--json").json["agents"]
        assert set(seen) == set(id.values())
        return all(set(one["versions"]) == set(seen) and not one["behind"] for one in seen.values())

    eventually_sync(known, timeout=20)
    text = chat.ok("gossip", "digest")
    assert text.lines[0].split() == ["AGENT", "ROOT", "OWNERS", "BEHIND", "TOMBSTONES", "BEGUN", "EQUAL"]
    assert text.lines[-1].startswith("3 agents · ")
    assert chat.ok("gossip", "digest", "west", "-q").lines == [id["west"]]


def test_info_says_whether_they_have_converged(chat: Cli) -> None:
    def agreed() -> bool:
        found = chat.ok("info", "--sample", "0", "--json").json["gossip"]
        assert found == {"agents": 3, "distinct_root_hashes": 1, "converged": True}, found
        return "gossip: 3 agents · 1 root hash · converged" in chat.ok("info", "--sample", "0").lines

    eventually_sync(agreed, timeout=20)


def test_peers_tells_what_an_agent_observed(chat: Cli) -> None:
    id = ids(chat)

    async def ask() -> None:
        async with Mesh.connect(chat.url, namespace=chat.namespace) as mesh:
            assert await mesh.request("ask", timeout=10) == "hello"

    asyncio.run(ask())
    rows = {row["peer"]: row for row in chat.ok("gossip", "peers", "north", "--json").objects}
    met = rows[id["south"]]
    assert (met["agent"], met["error_rate"], met["breaker"], met["suspect"]) == (id["north"], 0, "closed", None)
    assert met["latency_ms"] > 0
    assert rows[id["west"]]["latency_ms"] is rows[id["west"]]["breaker"] is None
    heads, *lines = chat.ok("gossip", "peers").lines
    assert heads.split() == ["AGENT", "PEER", "LATENCY", "ERRORS", "BREAKER", "SUSPECT"]
    assert any(line.split()[:2] == [id["north"], id["south"]] and "closed" in line for line in lines)


def test_what_is_not_there_is_exit_4_and_what_may_not_be_is_2(chat: Cli) -> None:
    for verb in (
        ["digest", "noth"],
        ["peers", "noth"],
        ["get", "mood", "--agent", "noth"],
        ["set", "a", "1", "--agent", "noth"],
    ):
        outcome = chat("gossip", *verb)
        assert (outcome.code, outcome.out) == (4, "")
        assert "no live agent has the id or name 'noth'" in outcome.err
    nothing = chat("gossip", "get", "nobodys")
    assert (nothing.code, nothing.out) == (4, "")
    assert "nobody tells anything under 'nobodys'" in nothing.err
    own = chat("gossip", "set", "mesh.card", "{}", "--agent", "north")
    assert (own.code, own.out) == (2, "")
    assert "'mesh.card' is the mesh's own" in own.err
    assert chat("gossip", "set", "a b", "1", "--agent", "north").code == 2
    assert "say less" in chat("gossip", "set", "large", "x" * 9000, "--agent", "north").err


def test_where_gossip_is_off_it_is_said_how_to_turn_it_on(cli: Cli, spawn: Spawner) -> None:
    assert cli("gossip", "digest").code == 4
    spawn("agent", "--app", "tests.cli.chat:mute").says(" ready ")
    for verb in (["digest"], ["get", "mood"], ["set", "mood", "bad", "--agent", "mute"]):
        outcome = cli("gossip", *verb)
        assert (outcome.code, outcome.out) == (6, "")
        assert (
            "gossip is off at mute.1: agents gossip from ten of them on, or with Agent(..., gossip=True)" in outcome.err
        )
    assert cli.ok("gossip", "peers").out == ""
    assert cli.ok("info", "--sample", "0", "--json").json["gossip"] is None
    assert "gossip" not in cli.ok("info", "--sample", "0").out


def test_who_has_not_heard_of_something_is_behind(cli: Cli, spawn: Spawner) -> None:
    for name in ("north", "south"):
        spawn("agent", "--app", f"tests.cli.chat:{name}", CHAT_INTERVAL="3600").says(" ready ")
    id = ids(cli)
    cli.ok("gossip", "set", "secret", "1", "--agent", "north")
    seen = cli.ok("gossip", "digest", "--json").json
    assert (seen["gossiping"], seen["distinct_root_hashes"], seen["converged"]) == (2, 2, False)
    assert id["north"] in seen["agents"][id["south"]]["behind"]
    assert id["north"] not in seen["agents"][id["north"]]["behind"]
    text = cli.ok("gossip", "digest")
    assert text.lines[-1] == "2 agents · 2 root hashes · not converged"
    assert f"! knows less of {id['north']}" in text.out
    assert cli("gossip", "get", "secret", "--at", "south").code == 4
    eventually_sync(lambda: "gossip: 2 agents · 2 root hashes · not converged" in cli.ok("info", "--sample", "0").lines)


def test_an_agent_that_does_not_answer_is_named_and_exit_1(cli: Cli, spawn: Spawner) -> None:
    spawn("agent", "--app", "tests.cli.chat:north").says(" ready ")
    stopped = spawn("agent", "--app", "tests.cli.chat:south")
    stopped.says(" ready ")
    id = ids(cli)
    stopped.send(signal.SIGSTOP)
    try:
        outcome = cli("gossip", "digest", "--timeout", "500ms", "--json")
        assert outcome.code == 1
        assert (list(outcome.json["agents"]), outcome.json["silent"]) == ([id["north"]], [id["south"]])
        assert f"{id['south']} did not answer 'gossip' within 0.5 s" in outcome.err
    finally:
        stopped.send(signal.SIGCONT)


def test_root_hashes_are_counted_where_there_are_some() -> None:
    assert convergence(["", ""]) is None
    assert convergence(["a", "a", ""]) == {"agents": 2, "distinct_root_hashes": 1, "converged": True}
    assert convergence(["a", "b"]) == {"agents": 2, "distinct_root_hashes": 2, "converged": False}
