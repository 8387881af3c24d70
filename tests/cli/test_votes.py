"""`vote`: opened, looked at, answered by hand, counted again, cancelled."""

from __future__ import annotations

from streammesh.motions import Motion
from streammesh.sync import Mesh
from tests.cli.conftest import Cli


def opened(cli: Cli, id: str, **rules: object) -> None:
    """A vote of two agents that nobody has seen: nobody is here who would find them dead."""
    motion = Motion.make("What do we drink?", ["tea", "milk"], deadline=600, **rules)  # type: ignore[arg-type]
    with Mesh.connect(cli.url, namespace=cli.namespace) as mesh:
        mesh.wait(lambda m: m.votes.open(motion, {"ann.1": 1, "bob.2": 2}, id=id))


def test_open_asks_and_tells(shop: Cli) -> None:
    said = shop.ok(
        "vote", "open", "What do we drink?", "tea", "milk", "--topic", "taste", "-p", '"milk"', "--json"
    ).json
    assert (said["outcome"], said["winner"], said["turnout"], said["confidence"]) == ("decided", "milk", 1.0, 1.0)
    assert shop.ok("vote", "recount", said["id"], "--json").json["agrees"] is True
    assert "the record agrees" in shop.ok("vote", "recount", said["id"]).out
    text = shop.ok(
        "vote",
        "open",
        "?",
        "tea",
        "milk",
        "--topic",
        "taste",
        "--voter",
        "shop=3",
        "--method",
        "weighted",
        "-p",
        '"tea"',
        "--id",
        "w",
    ).out
    assert "winner" in text
    assert "3 of 3, 100% agree" in text
    assert shop.ok("vote", "open", "?", "tea", "milk", "--topic", "taste", "-p", '"tea"', "-q").out == "tea\n"
    nobody = shop("vote", "open", "?", "tea", "milk", "--topic", "taste")
    assert (nobody.code, "no_majority" in nobody.out) == (1, True)


def test_open_says_what_is_wrong(cli: Cli) -> None:
    for words, code, said in (
        (["?", "tea"], 2, "2 to 100"),
        (["?", "tea", "tea"], 2, "twice"),
        (["?", "tea", "milk"], 4, "no live agent votes on topic 'default'"),
        (["?", "tea", "milk", "--voter", "nobody"], 4, "nobody"),
        (["?", "tea", "milk", "--voter", "x=y"], 2, "whole number"),
        (["?", "tea", "milk", "--voter", "x", "--capability", "y"], 2, "give one"),
        (["?", "tea", "milk", "--tie", "coin"], 2, "no_decision"),
    ):
        ended = cli("vote", "open", *words)
        assert ended.code == code, (words, ended)
        assert said in ended.err, words


def test_by_hand(cli: Cli) -> None:
    opened(cli, "v")
    assert cli("vote", "close", "v").code == 5
    assert cli.ok("vote", "cast", "v", "tea", "--as", "ann.1").out == "open\n"
    again = cli("vote", "cast", "v", "milk", "--as", "ann.1")
    assert (again.code, "voted already" in again.err) == (6, True)
    foreign = cli("vote", "cast", "v", "milk", "--as", "eve.3")
    assert (foreign.code, "not in its electorate" in foreign.err) == (6, True)
    assert cli("vote", "cast", "v", "--as", "bob.2").code == 2
    assert cli("vote", "cast", "v", "wine", "--as", "bob.2").code == 2
    assert cli.ok("vote", "cast", "v", "--abstain", "--as", "bob.2", "--json").json == {
        "id": "v",
        "agent": "bob.2",
        "verdict": "ok",
        "state": "decided",
    }
    shown = cli.ok("vote", "show", "v").out
    assert ["ann.1", "1", "tea"] in [line.split() for line in shown.splitlines()]
    assert ["bob.2", "2", "abstain"] in [line.split() for line in shown.splitlines()]
    told = cli.ok("vote", "show", "v", "--json").json
    assert (told["decision"]["winner"], told["electorate"], told["ballots"]) == (
        "tea",
        {"ann.1": 1, "bob.2": 2},
        {"ann.1": "1", "bob.2": "abstain"},
    )
    assert "tea" in cli.ok("vote", "close", "v").out


def test_ls_and_cancel(cli: Cli) -> None:
    assert "no votes" in cli("vote", "ls").err
    opened(cli, "first")
    opened(cli, "second", method="approval")
    assert cli.ok("vote", "ls", "-q").lines == ["second", "first"]
    assert cli.ok("vote", "cancel", "first", "--by", "ada").out == "cancelled\n"
    listed = {one["id"]: one for one in cli.ok("vote", "ls", "--json").objects}
    assert (listed["first"]["state"], listed["first"]["about"], listed["second"]["method"]) == (
        "cancelled",
        "cancelled by ada",
        "approval",
    )
    assert cli.ok("vote", "ls").out.splitlines()[0].split() == [
        "VOTE",
        "STATE",
        "METHOD",
        "VOTERS",
        "OPENED",
        "OUTCOME",
        "QUESTION",
    ]
    cli.ok("vote", "cast", "second", "tea", "milk", "--as", "ann.1")
    cli.ok("vote", "cast", "second", "milk", "--as", "bob.2")
    assert cli("vote", "cancel", "second").code == 6
    for verb in ("show", "recount", "cancel", "close"):
        assert cli("vote", verb, "never").code == 4, verb
