"""`dead`: filters, dry runs, the question before anything is done to many, replay, removal."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.cli.conftest import Cli
from tests.eventually import eventually_sync


@pytest.fixture
def letters(shop: Cli) -> list[str]:
    """Two of `broken`, one of `greet`; nothing else."""
    shop("dead", "rm", "--all", "--yes")
    shop("call", "broken", "text=one", "--id", "d1")
    shop("call", "broken", "text=two", "--id", "d2")
    shop("call", "greet", "wrong=1", "--id", "d3")
    # The ids are used again by each test: a known id would be the old task.
    for id in ("d1", "d2", "d3"):
        if shop("dead", "show", id).code == 4:
            shop.ok("task", "retry", id)
            eventually_sync(lambda id=id: shop("dead", "show", id).code == 0)  # type: ignore[misc]
    return ["d1", "d2", "d3"]


def test_ls_and_its_filters(shop: Cli, letters: list[str]) -> None:
    assert sorted(shop.ok("dead", "ls", "-q").lines) == letters
    assert sorted(shop.ok("dead", "ls", "-q", "-c", "broken").lines) == ["d1", "d2"]
    assert shop.ok("dead", "ls", "-q", "--error", "this: tw[o]").lines == ["d2"]
    assert shop.ok("dead", "ls", "-q", "--error", "^invalid_payload").lines == ["d3"]
    assert sorted(shop.ok("dead", "ls", "-q", "--since", "1h").lines) == letters
    assert shop.ok("dead", "ls", "-q", "--since", "2100-01-01").lines == []
    one = next(one for one in shop.ok("dead", "ls", "--json").objects if one["id"] == "d1")
    assert (one["reason"], one["error"]) == ("failed", "ValueError: cannot do this: one")
    assert (one["payload"], one["attempts"] >= 1) == ({"text": "one"}, True)
    text = shop.ok("dead", "ls").out
    assert text.split("\n")[0].split() == ["ID", "CAPABILITY", "REASON", "ATTEMPTS", "AT", "ERROR"]
    limited = shop("dead", "ls", "--limit", "1")
    assert len(limited.lines) == 2
    assert "2 older ones are not shown" in limited.err


def test_show_has_the_traceback(shop: Cli, letters: list[str]) -> None:
    text = shop.ok("dead", "show", "d1").out
    assert 'payload     {"text":"one"}' in text
    assert "raise ValueError" in text
    assert "Traceback" in shop.ok("dead", "show", "d1", "--json").json["detail"]


def test_a_letter_that_is_not_there_is_exit_4(shop: Cli, letters: list[str]) -> None:
    for verb in ("show", "replay", "rm"):
        outcome = shop("dead", verb, "nowhere")
        assert (outcome.code, outcome.out) == (4, "")
        assert "there is no dead letter of nowhere" in outcome.err


@pytest.mark.parametrize("verb", ["replay", "rm"])
def test_many_need_a_word_and_a_yes(shop: Cli, letters: list[str], verb: str) -> None:
    nothing = shop("dead", verb)
    assert nothing.code == 2
    assert "say which" in nothing.err
    unasked = shop("dead", verb, "--all")
    assert unasked.code == 2
    assert "3 dead letters are meant; say --yes" in unasked.err
    assert shop("dead", verb, "--error", "(").code == 2
    dry = shop.ok("dead", verb, "--all", "--dry-run", "-q")
    assert sorted(dry.lines) == letters
    assert sorted(shop.ok("dead", "ls", "-q").lines) == letters


def test_replay_runs_them_again_under_the_same_id(shop: Cli, letters: list[str]) -> None:
    before = shop.ok("task", "show", "d1", "--json").json["attempt"]
    outcome = shop.ok("dead", "replay", "--capability", "broken", "--yes")
    assert sorted(outcome.lines) == ["d1", "d2"]
    assert "2 replayed" in outcome.err
    eventually_sync(lambda: sorted(shop.ok("dead", "ls", "-q").lines) == letters)
    assert shop.ok("task", "show", "d1", "--json").json["attempt"] == before + 1
    assert shop.ok("dead", "replay", "d1", "--json").json == {"id": "d1", "verdict": "ok"}


def test_rm_takes_them_away(shop: Cli, letters: list[str]) -> None:
    assert shop.ok("dead", "rm", "d3").out == "d3\n"
    assert sorted(shop.ok("dead", "rm", "--all", "-y", "--json").out.splitlines()) == [
        '{"id": "d1", "verdict": "removed"}',
        '{"id": "d2", "verdict": "removed"}',
    ]
    assert shop.ok("dead", "ls").out == ""
    assert "no dead letters" in shop("dead", "ls").err
    assert "no dead letters are meant" in shop("dead", "replay", "--all", "--yes").err


def test_a_letter_that_was_a_message_cannot_be_replayed(cli: Cli) -> None:
    """A message is for one agent; a task is for anybody."""
    with Redis.from_url(cli.url) as redis:
        redis.sadd(f"{{{cli.namespace}}}:caps", "inbox")
        redis.xadd(f"{{{cli.namespace}}}:dead:inbox", {"id": "m1", "payload": "1", "reason": "message_failed"})
    refused = cli("dead", "replay", "m1")
    assert (refused.code, refused.out) == (6, "")
    assert "m1 (is a message: only who sent it can send it again)" in refused.err
    assert cli.ok("dead", "rm", "m1").lines == ["m1"]
