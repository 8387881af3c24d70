"""The recorder keeps every line whatever happens to its process, and the end state is read whole from a real server."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tests.chaos.checker import check
from tests.chaos.history import Event, Execution, Final, Ledger, Recorder, read_final, read_history
from tests.servers import Server

WRITES_AND_DIES = """
import os, signal, sys
from pathlib import Path
from tests.chaos.history import Recorder
recorder = Recorder(Path(sys.argv[1]), "victim")
for number in range(100):
    recorder.start(f"t{number}", 1, "victim.1")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_lines_survive_sigkill(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run([sys.executable, "-c", WRITES_AND_DIES, str(tmp_path)], cwd=root, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [event.id for event in read_history(tmp_path)] == [f"t{number}" for number in range(100)]


def test_files_are_merged_by_the_clock(tmp_path: Path) -> None:
    one, two = Recorder(tmp_path, "one"), Recorder(tmp_path, "two")
    for number in range(3):
        one.start(f"one-{number}", 1, "one.1")
        two.start(f"two-{number}", 1, "two.1")
    assert [event.id for event in read_history(tmp_path)] == ["one-0", "two-0", "one-1", "two-1", "one-2", "two-2"]


def test_a_torn_last_line_is_left_out_and_a_torn_middle_is_an_error(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "one")
    recorder.start("t", 1, "a.1")
    path = tmp_path / "one.jsonl"
    with path.open("ab") as file:
        file.write(b'{"mono": 12.5, "proce')
    assert [event.id for event in read_history(tmp_path)] == ["t"]
    with path.open("ab") as file:
        file.write(b"\n{}\n")
    with pytest.raises(ValueError):
        read_history(tmp_path)


def test_a_call_is_known_or_unknown(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "client")
    with recorder.call("enqueue", "good", due=17) as call:
        call.ok(created=True)
    with recorder.call("enqueue", "bad") as call:
        call.fail(error="ServerFull")
    with pytest.raises(TimeoutError), recorder.call("enqueue", "unknown"):
        raise TimeoutError
    told = [(event.id, event.phase) for event in read_history(tmp_path)]
    assert told == [
        ("good", "invoke"), ("good", "ok"), ("bad", "invoke"), ("bad", "fail"), ("unknown", "invoke"), ("unknown", "info"),
    ]  # fmt: skip
    assert read_history(tmp_path)[0].data == {"due": 17}


def test_words_of_a_settlement_become_phases(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "a")
    for word in ("ok", "stale", ""):
        recorder.settling("t", 1, "a.1", "complete", "17")
        recorder.settled("t", 1, "a.1", word)
    assert [event.phase for event in read_history(tmp_path)[1::2]] == ["ok", "fail", "info"]


def test_an_unknown_fault_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="meteor"):
        Recorder(tmp_path, "driver").fault("meteor", "a.1", 0.0)


def test_the_end_state_is_read_whole(server: Server) -> None:
    client = redis.Redis.from_url(server.url, decode_responses=True, protocol=2)
    prefix = "{recorded}:"
    stream = f"{prefix}tasks:echo"
    client.xgroup_create(stream, "agents", "0", mkstream=True)
    entry = str(client.xadd(stream, {"id": "t1", "payload": "{}"}))
    raw = str(client.xadd(stream, {"payload": "{}"}))
    client.xreadgroup("agents", "a.1", {stream: ">"}, count=1)
    client.hset(f"{prefix}task:t1", mapping={"state": "running", "entry": entry})
    client.hset(f"{prefix}task:raw-1", mapping={"state": "queued", "entry": raw})
    client.hset(f"{prefix}task:t2", mapping={"state": "dead"})
    client.pexpire(f"{prefix}task:t2", 60_000)
    client.xadd(f"{prefix}dead:echo", {"id": "t2"})
    client.zadd(f"{prefix}due", {"task:t3": 17})
    client.set("{other}:task:x", "not ours")
    final = read_final(client, "recorded")
    assert set(final.records) == {"t1", "raw-1", "t2"}
    assert final.entries == [(stream, entry, "t1"), (stream, raw, "raw-1")]
    assert final.pending == [(stream, entry, "a.1")]
    assert final.due == ["task:t3"]
    assert final.letters == [("echo", "t2")]
    assert final.ttls[f"{prefix}task:t1"] is None
    assert 0 < (final.ttls[f"{prefix}task:t2"] or 0) <= 60_000


def test_the_ledger_keeps_executions_and_does_an_effect_once(server: Server) -> None:
    client = redis.Redis.from_url(server.url, decode_responses=True, protocol=2)
    ledger = Ledger(client, "recorder-ledger")
    assert ledger.execute("t", 1, "a.1") <= ledger.execute("t", 2, "b.2")
    assert ledger.effect("t")
    assert not ledger.effect("t")
    assert ledger.read() == [Execution("t", 1, "a.1"), Execution("t", 2, "b.2")]
    assert ledger.effects() == {"t": 1}


def test_the_report_reads_well() -> None:
    events = [
        Event(1.0, "client", "enqueue", "invoke", "t"),
        Event(1.5, "client", "enqueue", "ok", "t", data={"created": True}),
        Event(2.0, "a", "start", "ok", "t", data={"attempt": 1, "agent": "a.1"}),
        Event(2.5, "driver", "fault", "ok", data={"kind": "kill", "target": "a", "begun": 2.5, "ended": 2.5}),
    ]
    report = check(events, Final({"t": {"state": "running", "agent": "a.1", "attempt": "1", "entry": "5-0"}}))
    assert report.lost == ("t",)
    assert not report.settled_twice
    assert str(report).splitlines() == [
        "accepted 1, unknown 0; at the end: running 1",
        "executions 1, of these again 0; told stale 0",
        "faults: kill 1",
        "lost 1, settled twice 0, violations 2",
        "rule 1: t: lost: it was accepted, and at the end it is running",
        "    1.000 client: enqueue invoke t",
        "    1.500 client: enqueue ok t created=True",
        "    2.000 a: start ok t attempt=1 agent=a.1",
        "rule 5: t: running, and its entry 5-0 is not there",
        "    1.000 client: enqueue invoke t",
        "    1.500 client: enqueue ok t created=True",
        "    2.000 a: start ok t attempt=1 agent=a.1",
    ]
