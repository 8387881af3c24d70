"""`schedule`: added, looked at, paused, started by hand and removed from a shell."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Cli


def test_add_prints_the_name_and_when_it_comes(cli: Cli) -> None:
    added = cli.ok("schedule", "add", "morning", "folder=docs", "-w", "digest", "--cron", "0 7 * * mon-fri", "--tz", "Europe/Berlin")  # fmt: skip
    assert added.out == "morning\n"
    assert "created; next: " in added.err
    assert "07:00:00 +0" in added.err
    assert "no live agent has the workflow digest" in added.err
    again = cli.ok("schedule", "add", "morning", "folder=docs", "-w", "digest", "--cron", "0 7 * * mon-fri", "--tz", "Europe/Berlin", "--json")  # fmt: skip
    assert (again.json["verdict"], again.json["input"]) == ("unchanged", {"folder": "docs"})


def test_ls_show_and_next(cli: Cli) -> None:
    assert "no schedules; add one" in cli.ok("schedule", "ls").err
    cli.ok(
        "schedule", "add", "morning", "-w", "digest", "--cron", "0 7 * * *", "--tz", "Europe/Berlin", "--jitter", "5m"
    )
    cli.ok("schedule", "add", "often", "-t", "tidy", "--every", "90s", "--end", "2100-01-01T00:00:00Z")
    head, morning, often = cli.ok("schedule", "ls").lines
    assert head.split() == ["SCHEDULE", "STATE", "STARTS", "WHEN", "NEXT", "LAST", "FIRED"]
    assert "workflow digest  0 7 * * * (Europe/Berlin)" in morning
    assert "! no live agent has digest" in morning
    assert "task tidy        every 1m30s" in often
    assert cli.ok("schedule", "ls", "-q").lines == ["morning", "often"]
    assert [one["name"] for one in cli.ok("schedule", "ls", "--json").objects] == ["morning", "often"]
    shown = cli.ok("schedule", "show", "morning").out
    assert "starts   workflow digest" in shown
    assert "jitter   up to 300 s" in shown
    assert cli.ok("schedule", "show", "often", "--json").json["end"] == "2100-01-01T00:00:00Z"
    head, *rows = cli.ok("schedule", "next", "morning", "-n", "3").lines
    assert head == "IN Europe/Berlin               IN UTC"
    assert len(rows) == 3
    assert all(" 07:00:00 +0" in row and row.endswith(":00:00Z") for row in rows)
    upcoming = cli.ok("schedule", "next", "morning", "-n", "1", "--json").json
    assert upcoming["id"] == "morning:" + upcoming["utc"].replace("-", "").replace(":", "")


def test_pause_resume_run_now_and_rm(cli: Cli) -> None:
    cli.ok("schedule", "add", "morning", "-w", "digest", "--every", "1h")
    assert cli.ok("schedule", "pause", "morning", "--by", "ada").out == "morning\n"
    assert "is paused: nothing was changed" in cli.ok("schedule", "pause", "morning").err
    assert "paused by ada" in cli.ok("schedule", "ls").out
    assert "it starts nothing until it is resumed" in cli.ok("schedule", "next", "morning").err
    id = cli.ok("schedule", "run-now", "morning").out.strip()
    assert cli.ok("run", "show", id, "-q").out == "queued\n"
    cli.ok("run", "terminate", id)
    assert cli.ok("schedule", "resume", "morning", "--json").json == {"name": "morning", "verdict": "ok"}
    assert cli.ok("schedule", "rm", "morning").out == "morning\n"
    assert cli("schedule", "rm", "morning").code == 4


@pytest.mark.parametrize("verb", ["show", "next", "pause", "resume", "run-now", "rm"])
def test_one_that_is_not_there(cli: Cli, verb: str) -> None:
    gone = cli("schedule", verb, "nowhere")
    assert (gone.code, gone.out) == (4, "")
    assert "there is no schedule nowhere" in gone.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["-w", "digest"], "either cron= or every="),
        (["-w", "digest", "--cron", "0 7 * *"], "Wrong number of fields"),
        (["-w", "digest", "--cron", "0 7 * * *", "--tz", "Berlin"], "no time zone"),
        (["--every", "1h"], "either a workflow= or a task="),
    ],
)
def test_what_cannot_work(cli: Cli, options: list[str], says: str) -> None:
    refused = cli("schedule", "add", "bad", *options)
    assert (refused.code, refused.out) == (2, "")
    assert says in refused.err


def test_info_and_doctor_tell_of_a_schedule_that_nobody_serves(cli: Cli) -> None:
    cli.ok("schedule", "add", "morning", "-w", "digest", "--every", "1h")
    assert (
        "schedules: 1 active (! morning starts digest, which no live agent has)" in cli.ok("info", "--sample", "0").out
    )
    assert "schedule morning starts the workflow digest, which no live agent has" in cli("doctor").out
    cli.ok("schedule", "pause", "morning")
    assert "1 paused" in cli("doctor").out
