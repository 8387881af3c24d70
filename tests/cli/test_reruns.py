"""`run fork`, `run skip`, `run graph`, `run show --depth`, `run replay`: runs once more, drawn, and against changed code."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from streammesh.cli.graph import Node, dot, mermaid, tree
from streammesh.steps import Step
from tests.cli.conftest import Cli, Spawner
from tests.cli.test_run import APP, in_state
from tests.eventually import eventually_sync
from tests.servers import Server


@pytest.fixture(scope="module")
def press(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A mesh with one agent of `tests.cli.press`, for all tests of this module."""
    namespace = f"t-{secrets.token_hex(5)}"
    spawner = Spawner(tmp_path_factory.mktemp("press"), server.url, namespace)
    try:
        spawner("agent", "--app", APP).says(" ready ")
        cli = Cli(server.url, namespace)
        eventually_sync(lambda: cli("agents", "ls", "--json").json["state"] == "ready")
        yield cli
    finally:
        spawner.close()


def test_fork_keeps_what_was_done_and_skip_answers_for_a_step(press: Cli) -> None:
    press.ok("run", "start", "page", 'words:=["ab"]', "--id", "forked", "--signal", "approved=1")
    press.ok("run", "wait", "forked", "--timeout", "10s")
    assert press.ok("run", "fork", "forked", "--from", "basename.0", "--id", "copy").out == "copy\n"
    assert press.ok("run", "wait", "copy", "--timeout", "10s").json == "AB (ink, 1)"
    assert "had been made before" in press.ok("run", "fork", "forked", "--from", "basename.0", "--id", "copy").err
    assert press.ok("run", "show", "copy", "--json").json["forked_of"] == "forked"
    unknown = press("run", "fork", "forked", "--from", "x.0")
    assert unknown.code == 4
    assert "0:set-type.0, basename.0" in unknown.err
    press.ok("run", "start", "absent", "--id", "lonely")
    in_state(press, "lonely", "parked")
    assert press("run", "skip", "lonely", "x.0").code == 4
    press.ok("run", "skip", "lonely", "nobody-offers-this.0", "--result", '{"done":1}', "--by", "ada")
    press.ok("run", "wait", "lonely", "--timeout", "10s")
    assert 'nobody-offers-this.0 = {"done": 1} by ada' in press.ok("run", "history", "lonely").out
    assert press("run", "skip", "lonely", "nobody-offers-this.0").code == 6


def test_replay_tries_the_code_of_an_app_against_a_journal(press: Cli) -> None:
    press.ok("run", "start", "dry", "--id", "drying")
    in_state(press, "drying", "parked")
    assert "fits: 2 records, and the code waits" in press.ok("run", "replay", "drying", "--app", APP, "--prefixes").out
    other = press("run", "replay", "drying", "--app", "tests.cli.press:changed")
    assert other.code == 1
    assert "the journal has timer 'timer' at path 'timer.0'" in other.err
    assert "press.py:" in other.err
    told = press("run", "replay", "drying", "--app", "tests.cli.press:changed", "--json")
    assert (told.code, told.json["ok"]) == (1, False)
    journal = press.ok("run", "history", "drying", "--json").out
    again = press("run", "replay", "--app", APP, "--journal", "-", "--json", stdin=journal)
    assert again.json == {"run": "-", "ok": True, "records": 2, "ended": None, "asks": [], "remark": None}
    assert press("run", "replay", "drying", "--app", "tests.cli.press:later").code == 2
    assert press("run", "replay", "--app", APP).code == 2
    press.ok("run", "cancel", "drying")


def test_graph_draws_the_flow_for_people_and_for_programs(press: Cli) -> None:
    press.ok("run", "start", "page", 'words:=["a","b"]', "--id", "drawn", "--signal", "approved=1")
    press.ok("run", "wait", "drawn", "--timeout", "10s")
    text = press.ok("run", "graph", "drawn").out.splitlines()
    assert text[0] == "page drawn  succeeded"
    assert [line[:3] for line in text[1:4]] == ["├─ ", "├─ ", "└─ "]
    # The last answer let it go on.
    place = next(number for number, line in enumerate(text) if "basename.0" in line)
    assert text[place].lstrip("│ ").startswith("↓  basename.0  succeeded")
    assert ":set-type.0  succeeded" in text[place - 1]
    drawn = press.ok("run", "graph", "drawn", "--format", "json").json
    after = {step["key"]: step["after"] for step in drawn["steps"]}
    assert after["0:set-type.0"] is None
    assert after["basename.0"] in ("0:set-type.0", "1:set-type.0")
    chart = press.ok("run", "graph", "drawn", "--format", "mermaid").out
    assert chart.startswith('flowchart TD\n  n0(["page drawn<br>succeeded"])\n')
    assert chart.count("-->") == 3
    digraph = press.ok("run", "graph", "drawn", "--format", "dot").out
    assert digraph.count("->") == 3
    assert digraph.count("{") == digraph.count("}") == 1
    assert press("run", "graph", "no-such-run").code == 4


def test_a_chain_in_a_drawing_does_not_go_further_in() -> None:
    steps = [Step("step", "s", f"s.{n}", "succeeded") for n in range(3_000)]
    nodes = [Node(step.path, steps[n - 1].path if n else "", step) for n, step in enumerate(steps)]
    lines = list(tree("long", nodes))
    assert len(lines) == 3_001
    assert {line[:3] for line in lines[1:]} == {"↓  "}
    assert list(tree("empty", [])) == ["empty"]
    odd = Node("a", "", Step("call", "a", "a", "failed", error='say "no"\\ <b>#'))
    assert '"a<br>failed · say #quot;no#quot;\\ #lt;b#gt;#35;"' in "\n".join(mermaid("t", [odd]))
    assert '"a\\nfailed · say \\"no\\"\\\\ <b>#"' in "\n".join(dot("t", [odd]))


def test_show_goes_down_to_children_and_says_what_open_steps_wait_for(press: Cli) -> None:
    press.ok("run", "start", "book", 'pages:=["a"]', "--id", "bound")
    in_state(press, "bound:p0", "parked")
    in_state(press, "bound", "parked")
    assert "0:set-type.0" not in press.ok("run", "show", "bound").out
    deep = press.ok("run", "show", "bound", "--depth", "2").out
    assert "0:set-type.0" in deep
    assert "waits for signal approved" in deep
    (child,) = press.ok("run", "show", "bound", "--depth", "1", "--json").json["children"]
    assert (child["id"], child["steps"][0]["agent"]) == ("bound:p0", "press.1")
    press.ok("run", "cancel", "bound")
    press.ok("run", "start", "absent", "--id", "gone")
    in_state(press, "gone", "parked")
    (step,) = press.ok("run", "show", "gone", "--json").json["steps"]
    assert "no live agent" in step["why"]
    assert "no live agent" in press.ok("run", "show", "gone").out
    press.ok("run", "terminate", "gone")
