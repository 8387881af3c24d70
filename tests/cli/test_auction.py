"""`auction`: opened, looked into and cancelled from a shell."""

from __future__ import annotations

from tests.cli.conftest import Cli


def test_open_show_and_cancel_while_it_waits_in_the_queue(cli: Cli) -> None:
    assert cli.ok("auction", "open", "summarize", "text=hi", "--id", "doc-1").out == "doc-1\n"
    again = cli.ok("auction", "open", "summarize", "text=hi", "--id", "doc-1", "--json")
    assert again.json == {"id": "doc-1", "created": False}
    assert "no second one" in again.err
    assert cli("auction", "open", "summarize", "text=other", "--id", "doc-1").code == 6
    assert [one["state"] for one in cli.ok("auction", "ls", "--json").objects] == ["queued"]
    assert cli.ok("auction", "ls", "-q").lines == ["doc-1"]
    assert "no_bids" in cli.ok("auction", "ls").out
    shown = cli.ok("auction", "show", "doc-1").out
    assert "queued" in shown
    assert "doc-1:work" in shown
    assert [line["type"] for line in cli.ok("auction", "show", "doc-1", "--json").json["audit"]] == ["open", "queued"]
    assert cli.ok("auction", "cancel", "doc-1").out == "doc-1 cancelled\n"
    assert cli("auction", "cancel", "doc-1").code == 6
    assert "no auction is open" in cli.ok("auction", "ls").err


def test_waiting_for_one_that_nobody_bids_for(cli: Cli) -> None:
    ended = cli("auction", "open", "summarize", "--fallback", "none", "--wait", "--json")
    assert (ended.code, ended.json["state"]) == (1, "no_bids")
    later = cli("auction", "open", "summarize", "--id", "later", "--wait", "--timeout", "100ms")
    assert later.code == 5
    assert "queued after 0.1 s" in later.err
    cli.ok("auction", "cancel", "later")


def test_what_is_refused(cli: Cli) -> None:
    for command in ("show", "cancel"):
        assert cli("auction", command, "never").code == 4
    assert cli("auction", "open", "x", "--weight", "speed=1").code == 2
    assert cli("auction", "open", "x", "--weight", "eta").code == 2
    assert cli("auction", "open", "x", "--timeout", "1s").code == 2
    assert cli("auction", "open", "x", "--bidder", "nobody").code == 4
