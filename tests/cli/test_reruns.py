"""`run fork`, `run skip`, `run replay`: a part of a run once more, and changed code against what was recorded."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

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
