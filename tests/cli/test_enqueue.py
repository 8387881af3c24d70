"""`enqueue` and `call`: one task, many tasks, ids, delays, results and the exit code of each outcome."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, Spawner
from tests.eventually import eventually_sync


def test_the_id_is_the_only_output(cli: Cli) -> None:
    outcome = cli.ok("enqueue", "greet", "name=Ada", "times:=2", "-q")
    (id,) = outcome.lines
    record = cli.ok("task", "show", id, "--json").json
    assert (record["state"], record["payload"]) == ("queued", {"name": "Ada", "times": 2})


def test_a_known_id_is_the_same_task_and_another_payload_is_refused(cli: Cli) -> None:
    assert cli.ok("enqueue", "greet", "name=Ada", "--id", "a").out == "a\n"
    again = cli("enqueue", "greet", "name=Ada", "--id", "a")
    assert (again.code, again.out) == (0, "a\n")
    assert "already queued" in again.err
    assert cli.ok("enqueue", "greet", "name=Ada", "--id", "a", "--json").json == {"id": "a", "created": False}
    other = cli("enqueue", "greet", "name=Bob", "--id", "a")
    assert (other.code, other.out) == (6, "")
    assert "with another payload; use a new id" in other.err


def test_every_option_reaches_the_record(cli: Cli) -> None:
    cli.ok("enqueue", "greet", "--id", "later", "--in", "5m", "--priority", "high", "--header", "tenant=blue")
    record = cli.ok("task", "show", "later", "--json").json
    assert (record["state"], record["priority"], record["header.tenant"]) == ("delayed", "high", "blue")
    cli.ok("enqueue", "greet", "--id", "at", "--at", "2100-01-01T00:00:00Z", "--deadline", "2100-01-02")
    record = cli.ok("task", "show", "at", "--json").json
    assert record["due"] == 4102444800000
    assert record["deadline"] > record["due"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--in", "5m", "--at", "2100-01-01"], "--in and --at are both given"),
        (["--in", "soon"], "is no duration"),
        (["--priority", "urgent"], "'urgent' is not one of"),
        (["--id", "no spaces"], "task id 'no spaces' is not usable"),
        (["-p", "[1]"], "the payload is a JSON array; expected an object"),
        (["-p", '{"a": NaN}'], "the payload is not JSON"),
        (["-p", "@nowhere.json"], "cannot be read from nowhere.json"),
        (["--header", "x"], "expected name=value"),
        (["--id-from", "x"], "--id-from is for --lines"),
        (["--lines", "a=b"], "leave the fields out"),
    ],
)
def test_bad_input_is_exit_2_and_says_what_would_be_right(cli: Cli, arguments: list[str], says: str) -> None:
    outcome = cli("enqueue", "greet", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert says in outcome.err


def test_a_payload_from_stdin_and_from_a_file(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text('{"name": "file"}')
    for source, stdin, expected in [("-", '{"name": "stdin"}\n', "stdin"), (f"@{file}", "", "file")]:
        id = cli.ok("enqueue", "greet", "-p", source, stdin=stdin).out.strip()
        assert cli.ok("task", "show", id, "--json").json["payload"] == {"name": expected}


def test_who_enqueues_for_nobody_is_warned(cli: Cli, shop: Cli) -> None:
    assert "no live agent offers greet (offered: none)" in cli("enqueue", "greet").err
    typo = shop("enqueue", "greeet")
    assert typo.code == 0
    assert "no live agent offers greeet; did you mean greet?" in typo.err
    assert shop("enqueue", "greeet", "-q").err == ""


def test_lines_are_a_task_each(cli: Cli, tmp_path: Path) -> None:
    lines = "".join(json.dumps({"n": n, "key": f"k{n}"}) + "\n" for n in range(2500)) + "\n"
    outcome = cli.ok("enqueue", "greet", "--lines", "-p", "-", "--id-from", "key", stdin=lines)
    assert outcome.lines == [f"k{n}" for n in range(2500)]
    assert "2500 enqueued" in outcome.err
    file = tmp_path / "lines"
    file.write_text(lines)
    again = cli.ok("enqueue", "greet", "--lines", "-p", f"@{file}", "--id-from", "key", "--json")
    assert again.objects[7] == {"id": "k7", "created": False}
    assert "0 enqueued, 2500 known already" in again.err


def test_a_bad_line_stops_there_and_says_where(cli: Cli) -> None:
    outcome = cli("enqueue", "greet", "--lines", stdin='{"n": 1}\n\n{"n": 2}\n[3]\n{"n": 4}\n')
    assert (outcome.code, len(outcome.lines)) == (2, 2)
    assert "line 4: the payload is a JSON array" in outcome.err
    assert "what came before it is enqueued, the rest is not" in outcome.err
    assert len(cli.ok("task", "ls", "-q").lines) == 2


def test_a_line_with_a_known_id_and_another_payload_is_exit_6(cli: Cli) -> None:
    cli.ok("enqueue", "greet", "--lines", "--id-from", "id", stdin='{"id": "a", "n": 1}\n')
    outcome = cli("enqueue", "greet", "--lines", "--id-from", "id", stdin='{"id": "a", "n": 2}\n{"id": "b"}\n')
    assert (outcome.code, outcome.lines) == (6, ["b"])
    assert "line 1: task a is known" in outcome.err


@pytest.mark.parametrize("line", ['{"other": 1}', '{"id": null}', '{"id": "no spaces"}', '{"id": true}'])
def test_a_line_without_a_usable_id(cli: Cli, line: str) -> None:
    outcome = cli("enqueue", "greet", "--lines", "--id-from", "id", stdin=line)
    assert (outcome.code, outcome.out) == (2, "")
    assert "line 1: field 'id' as an id" in outcome.err


def test_call_prints_the_result(shop: Cli) -> None:
    assert shop.ok("call", "greet", "name=Ada", "times:=2").json == {"hello": "AdaAda"}
    assert shop.ok("call", "headers", "--header", "tenant=blue").json == {"tenant": "blue"}
    said = shop.ok("call", "greet", "name=Ada", "--id", "known", "--json").json
    assert said == {"id": "known", "state": "succeeded", "result": {"hello": "Ada"}}
    again = shop.ok("call", "greet", "name=Ada", "--id", "known")
    assert again.json == {"hello": "Ada"}
    assert "the outcome of task known" in again.err
    assert shop("call", "greet", "name=Bob", "--id", "known").code == 6


@pytest.mark.parametrize(
    ("arguments", "code", "state", "says"),
    [
        (["refuse"], 1, "failed", "the shop is closed"),
        (["broken", "text=x"], 1, "dead", "ValueError: cannot do this: x"),
        (["greet", "nme=Ada"], 1, "dead", "name"),
        (["hold", "seconds:=30", "--timeout", "200ms"], 5, "open", "streammesh task wait"),
        (["hold", "seconds:=30", "--deadline", "300ms"], 1, "expired", "deadline"),
    ],
)
def test_call_tells_what_became_of_it(shop: Cli, arguments: list[str], code: int, state: str, says: str) -> None:
    plain, said = shop("call", *arguments), shop("call", *arguments, "--json")
    assert (plain.code, plain.out, said.code) == (code, "", code)
    assert f" {state}: " in plain.err
    assert says in plain.err
    assert (said.json["state"], says in said.json["error"]) == (state, True)
    for id in shop.ok("task", "ls", "-q", "--state", "running").lines:
        shop("task", "cancel", id)


def test_to_one_agent(shop: Cli) -> None:
    (agent,) = shop.ok("agents", "ls", "-q").lines
    assert shop.ok("call", "greet", "name=a", "--to", agent).json == {"hello": "a"}
    assert shop.ok("call", "greet", "name=b", "--to", "shop").json == {"hello": "b"}
    outcome = shop("call", "greet", "name=c", "--to", "shpo")
    assert outcome.code == 4
    assert f"no live agent has the id or name 'shpo'; alive: {agent}" in outcome.err


def test_ctrl_c_ends_a_call_with_130_and_says_that_the_task_goes_on(spawn: Spawner, cli: Cli) -> None:
    import signal

    caller = spawn("call", "greet", "name=Ada", "--id", "patient")
    eventually_sync(lambda: cli.state("patient") == "queued")
    caller.says("no live agent offers greet")
    caller.send(signal.SIGINT)
    assert caller.ends() == 130
    assert "task patient goes on: streammesh task wait patient" in caller.err
    assert "Traceback" not in caller.err
