"""The readiness probe: exit 0 only for a fresh `ready`, a reason for everything else, and no import that costs."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from streammesh import health

ROOT = Path(__file__).resolve().parents[1]
PROBE = [sys.executable, "-m", "streammesh.health"]


def probe(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([*PROBE, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_fresh_beat_is_ready(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    ready.write_text(f'{{"state":"ready","at":{time.time()}}}\n')
    assert probe(str(ready)) == (0, "ready\n")


def test_a_missing_file_is_not_ready(tmp_path: Path) -> None:
    code, words = probe(str(tmp_path / "ready"))
    assert code == 1
    assert "no ready file" in words


def test_a_call_without_a_file_is_a_usage_error() -> None:
    assert probe()[0] == 2
    assert probe("/tmp/ready", "soon")[0] == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"state":"ready","at":1000}', ""),
        ('{"state":"ready","at":985}', ""),
        ('{"state":"ready","at":984}', "last heartbeat 16 s ago, more than 15 s"),
        ('{"state":"ready","at":1100}', "last heartbeat -100 s ago"),
        ('{"state":"ready","at":NaN}', "last heartbeat nan s ago"),
        ('{"state":"draining","at":1000}', "the agent is draining"),
        ('{"state":"ready"}', "unreadable ready file"),
        ('{"at":1000}', "unreadable ready file"),
        ('{"state":"ready","at":null}', "unreadable ready file"),
        ('["ready", 1000]', "unreadable ready file"),
        ("[" * 4096, "unreadable ready file"),
        ("", "unreadable ready file"),
        ("\udcff", "unreadable ready file"),
    ],
)
def test_anything_but_a_fresh_ready_has_a_reason(content: str, reason: str, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    ready.write_text(content, errors="surrogateescape")
    judged = health.judge(str(ready), now=1000.0)
    assert reason in judged
    assert bool(judged) == bool(reason)


def test_the_probe_loads_nothing_that_costs(tmp_path: Path) -> None:
    """It runs every few seconds in every replica; a Redis client would cost five times the CPU."""
    imports = subprocess.run(
        [sys.executable, "-X", "importtime", *PROBE[1:], str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    ).stderr
    loaded = {line.rpartition("|")[2].strip() for line in imports.splitlines() if line.startswith("import time")}
    assert {"json", "streammesh"} <= loaded
    assert not {name for name in loaded if name.startswith("streammesh.")}
    assert not loaded & {"redis", "click", "orjson", "anyio", "asyncio"}
