"""What stands in for redis-cli, where there is none, prints what redis-cli prints: so the README's lines are run everywhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import readme
from tests.servers import Server

ROOT = Path(__file__).resolve().parents[1]
STREAM = "{mesh}:tasks:summarize"

#: A little of everything: a stream with an entry that is read and one that is not, a hash, a set, sorted sets.
SETUP = (
    ("XGROUP", "CREATE", STREAM, "agents", "0", "MKSTREAM"),
    ("XADD", STREAM, "1795360364598-0", "payload", '{"text": "\\"One.\\"\\n"}'),
    ("XADD", STREAM, "1795360364598-1", "payload", "{}"),
    ("XREADGROUP", "GROUP", "agents", "librarian.1", "COUNT", "1", "STREAMS", STREAM, ">"),
    ("HSET", "{mesh}:task:doc-17", "result", '{"a": "b"}', "state", "succeeded"),
    ("SADD", "{mesh}:caps", "summarize"),
    ("ZADD", "{mesh}:agents", "1795360364598", "librarian.1"),
    *(("ZADD", "{mesh}:due", str(n), f"task:{n}") for n in range(12)),
    *(("XADD", "{mesh}:events", f"{n}-1", "type", "agent.died") for n in range(1, 4)),
)


def reading() -> list[list[str]]:
    """The words of each line in README.md that reads."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    typed = [line for block in readme.blocks(text) if block.kind in ("sh", "console") for line in block.lines()]
    said = [line.words[1:] for line in typed if line.command.startswith("redis-cli ")]
    return [words for words in said if "XADD" not in words]


def where(server: Server) -> list[str]:
    """A database that no other test uses: the namespace is the README's own."""
    return ["-p", str(server.port), "-n", "9"]


@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="there is no redis-cli to compare with")
def test_it_prints_the_same(server: Server) -> None:
    def both(*arguments: str) -> None:
        said = []
        for program in ("redis-cli", "-e", "--no-raw"), (sys.executable, "-m", "tests.redis_cli"):
            done = subprocess.run(
                [*program, *where(server), *arguments], cwd=ROOT, timeout=20, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            # The time of idleness differs by what the first one took; redis-py keeps the word ERR to itself.
            said.append((done.returncode, [w for w in done.stdout.split() if w != "ERR" and not w.isdigit()]))
        assert said[0] == said[1], arguments

    for setup in SETUP:
        subprocess.run(["redis-cli", *where(server), *setup], check=True, capture_output=True)
    lines = reading()
    assert len(lines) > 10
    for arguments in lines:
        both(*arguments)
    both("XLEN", "{mesh}:caps")
    both("NONSENSE")


def test_the_last_word_may_come_from_a_pipe(server: Server) -> None:
    command = [sys.executable, "-m", "tests.redis_cli", *where(server), "-x", "SET", "{mesh}:x"]
    done = subprocess.run(command, input="a b\n", capture_output=True, text=True, cwd=ROOT, timeout=20, check=False)
    assert (done.stdout, done.returncode) == ('"OK"\n', 0)
