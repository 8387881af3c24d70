"""`run`: started, looked into, signalled, waited for and ended from a shell, on an agent that is a process."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator

import pytest

from tests.cli.conftest import Cli, Spawner
from tests.eventually import eventually_sync
from tests.servers import Server

APP = "tests.cli.press:agent"


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


def state(cli: Cli, id: str) -> str:
    return cli("run", "show", id, "-q").out.strip()


def in_state(cli: Cli, id: str, wanted: str) -> None:
    eventually_sync(lambda: state(cli, id) == wanted, what=f"{id} is {wanted}")


def explained(cli: Cli, id: str) -> tuple[str, str, str]:
    said = cli.ok("run", "explain", id, "--json").json
    return said["state"], said["cause"], said["text"]


def test_start_prints_the_id_and_wait_prints_the_result(press: Cli) -> None:
    assert press.ok("run", "start", "page", 'words:=["ab"]', "--id", "first").out == "first\n"
    in_state(press, "first", "parked")
    assert press.ok("run", "signal", "first", "approved", "-p", '"ada"').out == "first\n"
    assert press.ok("run", "wait", "first", "--timeout", "10s").json == "AB (ink, ada)"
    assert press.ok("run", "wait", "first", "--json").json == {
        "id": "first", "state": "succeeded", "result": "AB (ink, ada)",
    }  # fmt: skip
    fresh = press.ok("run", "start", "page", "-p", '{"words": []}', "--json").json
    assert fresh["created"]
    press.ok("run", "terminate", fresh["id"])


def test_start_can_bring_a_signal_and_wait(press: Cli) -> None:
    done = press.ok(
        "run", "start", "page", 'words:=["x"]', "--signal", 'approved={"by":"ada"}', "--wait", "--timeout", "10s"
    )
    assert done.json == "X (ink, {'by': 'ada'})"


def test_two_starts_with_one_id(press: Cli) -> None:
    press.ok("run", "start", "page", 'words:=["a"]', "--id", "twice")
    again = press.ok("run", "start", "page", 'words:=["a"]', "--id", "twice", "--signal", "approved")
    assert again.out == "twice\n"
    assert "there is a run of that id, no second one was made" in again.err
    assert "the signals were not sent to it" in again.err
    assert press.ok("run", "start", "page", 'words:=["a"]', "--id", "twice", "--json").json == {
        "id": "twice",
        "created": False,
    }
    refused = press("run", "start", "page", 'words:=["a"]', "--id", "twice", "--on-conflict", "fail")
    assert (refused.code, refused.out) == (6, "")
    assert "run twice is there already" in refused.err
    press.ok("run", "start", "page", 'words:=["b"]', "--id", "twice", "--on-conflict", "replace")
    eventually_sync(lambda: press.ok("run", "show", "twice", "--json").json["input"] == {"words": ["b"]})
    press.ok("run", "terminate", "twice")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["start", "page", "--timeout", "1s"], "--timeout is for --wait"),
        (["start", "Page!"], "workflow 'Page!' is not usable"),
        (["start", "page", "words"], "'words' is no field"),
        (["start", "page", "--signal", "=1"], "is no signal; expected NAME=JSON"),
        (["start", "page", "--signal", "approved=yes"], "payload of signal 'approved'"),
        (["start", "page", "--version", "0"], "--version"),
        (["start", "page", "--id", "a b"], "run id 'a b' is not usable"),
        (["show", "a b"], "run id 'a b' is not usable"),
        (["signal", "x", "approved", "-p", "{"], "payload"),
        (["ls", "--status", "odd"], "--status"),
    ],
)
def test_what_cannot_be_meant_is_exit_2(press: Cli, arguments: list[str], says: str) -> None:
    outcome = press("run", *arguments)
    assert (outcome.code, outcome.out) == (2, ""), outcome
    assert says in outcome.err


@pytest.mark.parametrize(
    "verb", ["show", "explain", "history", "wait", "cancel", "terminate", "pause", "resume", "signal"]
)
def test_a_run_that_is_not_there_is_exit_4(press: Cli, verb: str) -> None:
    outcome = press("run", verb, "nowhere", *(["approved"] if verb == "signal" else []))
    assert (outcome.code, outcome.out) == (4, ""), outcome
    assert "there is no run nowhere" in outcome.err


def test_a_server_that_is_not_there_is_exit_3(press: Cli) -> None:
    for arguments in (["ls"], ["start", "page"], ["show", "x"]):
        assert press("run", *arguments, url="redis://127.0.0.1:1").code == 3


def test_show_is_the_step_tree_and_what_it_waits_for(press: Cli) -> None:
    press.ok("run", "start", "page", 'words:=["one","two"]', "--id", "tree")
    in_state(press, "tree", "parked")
    text = press.ok("run", "show", "tree").out
    for pattern in (
        r"run +tree",
        r"state +parked",
        r'input +\{"words": \["one", "two"\]\}',
        r'status +\{"words": 2\}',
        r"STEP +WHAT +STATE +TOOK +AGENT +ATTEMPT",
        r'└─ 0:set-type\.0 +call set-type +succeeded +[\d.]+s +press\.1 +1 +"ONE"',
        r'└─ 1:set-type\.0 +call set-type +succeeded +[\d.]+s +press\.1 +1 +"TWO"',
        r"parked: waits for signal approved since [\d.]+s",
    ):
        assert re.search(pattern, text), (pattern, text)
    seen = press.ok("run", "show", "tree", "--json").json
    assert (seen["state"], seen["workflow"], seen["cause"]) == ("parked", "page", "signal")
    assert [(wait["kind"], wait["name"]) for wait in seen["waits"]] == [("signal", "approved")]
    assert [(step["path"], step["state"], step["agent"], step["attempt"], step["value"]) for step in seen["steps"]] == [
        ("0:set-type.0", "succeeded", "press.1", 1, "ONE"),
        ("1:set-type.0", "succeeded", "press.1", 1, "TWO"),
    ]
    press.ok("run", "signal", "tree", "approved", "by=ada")
    press.ok("run", "wait", "tree")
    after = press.ok("run", "show", "tree", "--json").json
    assert [step["what"] for step in after["steps"]] == ["call", "call", "signal", "step"]
    assert after["steps"][2]["value"] == {"by": "ada"}
    assert after["result"] == "ONE TWO (ink, {'by': 'ada'})"
    assert re.search(r"succeeded: [\d.]+s ago on press\.1", press.ok("run", "show", "tree").out)
    assert "the newest 1 of 4 steps" in press("run", "show", "tree", "--limit", "1").err


def test_show_of_timers_and_children(press: Cli) -> None:
    press.ok("run", "start", "dry", "--id", "timed")
    in_state(press, "timed", "parked")
    assert re.search(r"timer\.0 +timer sleep +waiting +- +- +- +due ", press.ok("run", "show", "timed").out)
    assert explained(press, "timed")[1] == "timer"
    assert re.search(r"waits for its timer timer\.0 \(in (59m\d\ds|1h00m)\)", explained(press, "timed")[2])
    press.ok("run", "start", "book", 'pages:=["x"]', "--id", "bound")
    in_state(press, "bound:p0", "parked")
    in_state(press, "bound", "parked")
    assert re.search(r"page\.0 +child page +parked .* run bound:p0", press.ok("run", "show", "bound").out)
    assert "waits for child page (run bound:p0)" in explained(press, "bound")[2]
    assert press.ok("run", "show", "bound:p0", "--json").json["parent"] == "bound"
    press.ok("run", "signal", "bound:p0", "approved")
    assert press.ok("run", "wait", "bound").json == ["X (ink, None)"]
    press.ok("run", "terminate", "timed")


def test_a_step_that_nobody_does_is_explained_to_its_end(press: Cli) -> None:
    press.ok("run", "start", "absent", "--id", "absent")
    in_state(press, "absent", "parked")
    state, word, text = explained(press, "absent")
    assert (state, word) == ("parked", "call")
    assert "waits for nobody-offers-this (task absent:nobody-offers-this.0), queued: " in text
    assert "no live agent offers nobody-offers-this" in text
    press.ok("run", "terminate", "absent")


def test_history_is_the_journal(press: Cli) -> None:
    press.ok("run", "start", "page", 'words:=["one"]', "--id", "told", "--signal", "approved=1", "--wait")
    lines = press.ok("run", "history", "told").lines
    assert all(
        word in line for word, line in zip(["start", "signal", "call", "done", "step", "end"], lines[1:], strict=True)
    )
    assert 'page version 1 {"words": ["one"]}' in lines[1]
    assert 'set-type at 0:set-type.0 with {"word": "one"}' in lines[3]
    assert '0:set-type.0 = "ONE"' in lines[4]
    records = press.ok("run", "history", "told", "--json").objects
    assert [record["what"] for record in records] == ["start", "signal", "call", "done", "step", "end"]
    raw = press.redis("LRANGE", f"{{{press.namespace}}}:run:told:journal", 0, -1)
    assert len(raw) == len(records)


def test_signals_are_kept_and_accepted_once(press: Cli) -> None:
    press.ok("run", "start", "page", 'words:=["a"]', "--id", "signalled")
    assert press.ok("run", "signal", "signalled", "other", "a:=1", "--signal-id", "s1").err == ""
    twice = press.ok("run", "signal", "signalled", "other", "a:=1", "--signal-id", "s1")
    assert "had been accepted before" in twice.err
    assert press.ok("run", "signal", "signalled", "approved", "--json").json == {
        "id": "signalled", "signal": "approved", "verdict": "ok",
    }  # fmt: skip
    press.ok("run", "wait", "signalled")
    late = press("run", "signal", "signalled", "approved")
    assert (late.code, late.out) == (6, "")
    assert "has ended already" in late.err


def test_wait_tells_failure_cancellation_and_patience_apart(press: Cli) -> None:
    failed = press("run", "start", "page", 'words:=["smudge"]', "--id", "smudged", "--wait")
    assert (failed.code, failed.out) == (1, "")
    assert "smudged failed: StepFailed: cannot be read" in failed.err
    said = press("run", "wait", "smudged", "--json")
    assert (said.code, said.json["state"]) == (1, "failed")
    assert re.search(r"0:set-type\.0 +call set-type +failed .* cannot be read", press.ok("run", "show", "smudged").out)
    assert "failed: StepFailed: cannot be read; " in press.ok("run", "explain", "smudged").out
    press.ok("run", "start", "dry", "--id", "slow")
    in_state(press, "slow", "parked")
    late = press("run", "wait", "slow", "--timeout", "100ms")
    assert (late.code, late.out) == (5, "")
    assert "no outcome after 0.1 s, parked: waits for its timer" in late.err
    assert "streammesh run wait slow" in late.err
    assert press("run", "wait", "slow", "--timeout", "100ms", "--json").json["state"] == "parked"
    press.ok("run", "terminate", "slow", "--by", "ada")
    assert "cancelled: terminated by ada" in press("run", "wait", "slow").err


def test_cancel_lets_it_clean_up_and_terminate_does_not(press: Cli) -> None:
    press.ok("run", "start", "dry", "--id", "tidy")
    in_state(press, "tidy", "parked")
    assert press.ok("run", "cancel", "tidy", "--by", "ada").out == "tidy\n"
    in_state(press, "tidy", "cancelled")
    whats = [record["what"] for record in press.ok("run", "history", "tidy", "--json").objects]
    assert whats == ["start", "timer", "cancel", "call", "done", "end"]
    assert "cancelled by ada" in press.ok("run", "explain", "tidy").out
    for verb in ("cancel", "terminate", "pause", "resume"):
        closed = press("run", verb, "tidy")
        assert (closed.code, closed.out) == (6, "")
        assert "run tidy has ended already" in closed.err
        assert press("run", verb, "tidy", "--json").json["verdict"] == "closed"
    press.ok("run", "start", "dry", "--id", "untidy")
    in_state(press, "untidy", "parked")
    assert press.ok("run", "terminate", "untidy", "--json").json == {"id": "untidy", "verdict": "ok"}
    assert "call" not in [record["what"] for record in press.ok("run", "history", "untidy", "--json").objects]


def test_pause_and_resume(press: Cli) -> None:
    press.ok("run", "start", "page", 'words:=["a"]', "--id", "halted")
    in_state(press, "halted", "parked")
    assert press.ok("run", "pause", "halted", "--by", "ada").out == "halted\n"
    assert "it was before" in press.ok("run", "pause", "halted").err
    state, word, text = explained(press, "halted")
    assert (state, word) == ("paused", "paused")
    assert re.match(r"paused by ada [\d.]+s ago; streammesh run resume halted", text)
    press.ok("run", "signal", "halted", "approved")
    assert press("run", "wait", "halted", "--timeout", "300ms").code == 5
    press.ok("run", "resume", "halted")
    press.ok("run", "wait", "halted", "--timeout", "10s")
    press.ok("run", "start", "dry", "--id", "awake")
    in_state(press, "awake", "parked")
    assert "there was nothing to resume" in press.ok("run", "resume", "awake").err
    press.ok("run", "terminate", "awake")


def test_ls_shows_states_workflows_and_versions(press: Cli) -> None:
    warned = press.ok("run", "start", "page", "words:=[]", "--id", "ls-queued", "--version", "2")
    assert "no live agent has version 2 of page (there are: absent, book, dry, page)" in warned.err
    assert press.ok("run", "start", "page", "--version", "2", "--id", "ls-quiet", "-q").err == ""
    press.ok("run", "start", "dry", "--id", "ls-parked")
    press.ok("run", "start", "page", 'words:=["a"]', "--id", "ls-done", "--signal", "approved", "--wait")
    in_state(press, "ls-parked", "parked")
    states = {one["id"]: one["state"] for one in press.ok("run", "ls", "--json").objects}
    assert (states["ls-queued"], states["ls-parked"], states["ls-done"]) == ("queued", "parked", "succeeded")
    newest = press.ok("run", "ls", "-q").lines
    assert newest.index("ls-done") < newest.index("ls-parked") < newest.index("ls-queued")
    assert press.ok("run", "ls", "-q", "-s", "parked", "-w", "dry").lines == ["ls-parked"]
    assert set(press.ok("run", "ls", "-q", "-w", "page@2").lines) == {"ls-queued", "ls-quiet"}
    assert set(press.ok("run", "ls", "-q", "-s", "open").lines) == {"ls-queued", "ls-quiet", "ls-parked"}
    assert press.ok("run", "ls").lines[0].split() == ["RUN", "STATE", "WORKFLOW", "ACTIVATION", "AGENT", "STARTED"]
    assert "the newest 2; --limit shows more" in press.ok("run", "ls", "--limit", "2").err
    state, word, text = explained(press, "ls-queued")
    assert (state, word) == ("queued", "nobody")
    assert "no live agent has version 2 of page (there is version 1 on press.1)" in text
    screen = press.ok("info", "--sample", "0").out
    assert "runs: 0 running · 1 parked · 2 queued (! 2 page@2, which no live agent has) · 0 stuck" in screen
    numbers = press.ok("info", "--sample", "0", "--json").json["runs"]
    assert numbers == {"queued": 2, "running": 0, "parked": 1, "paused": 0, "stuck": 0, "nobody": {"page@2": 2}, "complete": True}  # fmt: skip
    judged = press("doctor", "--json")
    assert judged.code == 1
    (fault,) = [one for one in judged.json["findings"] if one["subject"] == "nobody"]
    assert fault["text"] == "2 runs wait for page@2, which no live agent has"
    press.ok("run", "terminate", "ls-queued", "ls-quiet", "ls-parked")


def test_ls_of_nothing(cli: Cli) -> None:
    assert cli.ok("run", "ls").out == ""
    assert "no runs; start one" in cli("run", "ls").err
    assert cli.ok("run", "ls", "--json").objects == []


def test_agents_say_which_workflows_they_have(press: Cli) -> None:
    assert press.ok("agents", "show", "press", "--json").json["workflows"] == ["absent", "book", "dry", "page"]
    assert re.search(r"workflows +absent book dry page", press.ok("agents", "show", "press").out)


def test_a_run_started_by_redis_cli_is_listed_while_it_waits(cli: Cli, spawn: Spawner) -> None:
    cli.ok("run", "start", "page", "--id", "known", "-q")
    stream = f"{{{cli.namespace}}}:runs:page"
    entry = cli.redis("XADD", stream, "*", "payload", '{"words":["raw"]}')
    raw, known = cli.ok("run", "ls", "-q").lines
    assert known == "known"
    assert raw.endswith(entry)
    cli.ok("run", "terminate", "known")
    spawn("agent", "--app", APP).says(" ready ")
    in_state(cli, raw, "parked")
    cli.ok("run", "signal", raw, "approved")
    assert cli.ok("run", "wait", raw).json == "RAW (ink, None)"


def test_changed_code_is_stuck_and_says_where(cli: Cli, spawn: Spawner) -> None:
    first = spawn("agent", "--app", APP)
    first.says(" ready ")
    cli.ok("run", "start", "dry", "--id", "changed")
    in_state(cli, "changed", "parked")
    first.kill()
    spawn("agent", "--app", "tests.cli.press:changed").says(" ready ")
    cli.ok("run", "cancel", "changed")
    in_state(cli, "changed", "stuck")
    state, word, text = explained(cli, "changed")
    assert (state, word) == ("stuck", "stuck")
    assert "timer.0" in text
    assert "press.py:" in text
    assert "mend the code, then: streammesh run resume changed" in text
    assert cli.ok("run", "show", "changed").lines[-1].startswith("stuck: ")
    judged = {one["subject"]: one for one in cli("doctor", "--json").json["findings"]}
    assert judged["stuck runs"]["verdict"] == "fault"
    assert "1 stuck" in cli.ok("info", "--sample", "0").out


def test_a_killed_executor_is_seen(cli: Cli, spawn: Spawner) -> None:
    agent = spawn("agent", "--app", APP)
    agent.says(" ready ")
    cli.ok("run", "start", "page", 'words:=["a"]', "--id", "orphan")
    in_state(cli, "orphan", "parked")
    agent.popen.kill()
    agent.popen.wait()
    cli.ok("run", "signal", "orphan", "approved")

    def nobody() -> bool:
        return explained(cli, "orphan")[:2] == ("queued", "nobody")

    eventually_sync(nobody)
    spawn("agent", "--app", APP).says(" ready ")
    assert cli.ok("run", "wait", "orphan", "--timeout", "20s").json == "A (ink, None)"
    assert cli.ok("run", "show", "orphan", "--json").json["attempt"] == 2


@pytest.mark.parametrize("word", ["run", "workflows"])
def test_keys_has_lines_for_runs(press: Cli, word: str) -> None:
    listed = press.ok("keys", word, "--json").objects
    lines = [line for one in listed for line in one["lines"]]
    assert lines
    assert not any("<" in line for line in lines)


def test_ls_since_a_time_and_top_with_its_line_of_runs(press: Cli) -> None:
    press.ok("run", "start", "page", 'words:=["a"]', "--id", "seen-by-top")
    in_state(press, "seen-by-top", "parked")
    assert "seen-by-top" in press.ok("run", "ls", "--since", "2026-01-01", "-q").out.split()
    assert press.ok("run", "ls", "--since", "2999-01-01T00:00:00Z", "-q").out == ""
    assert re.search(r"^runs: .*\d+ parked", press.ok("top", "--interval", "100ms", "--count", "1").out, re.M)
    assert press.ok("top", "--interval", "100ms", "--count", "1", "--json").json["runs"]["parked"] >= 1
    press.ok("run", "terminate", "seen-by-top")
