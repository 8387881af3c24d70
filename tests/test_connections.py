"""What a server's refusal means: which errors pass, and which error of ours each one becomes."""

from __future__ import annotations

import pytest
from redis._parsers.base import BaseParser

from streammesh.connections import meaning, passing
from streammesh.errors import ConfigError, MeshError, ServerFull, StoreUnavailable

PASSING = [
    "LOADING Redis is loading the dataset in memory",
    "BUSY Redis is busy running a script",
    "READONLY You can't write against a read only replica.",
    "NOREPLICAS Not enough good replicas to write.",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "MASTERDOWN Link with MASTER is down",
    "CLUSTERDOWN The cluster is down",
    "TRYAGAIN Multiple keys request during rehashing of slot",
]
FINAL = {
    "OOM command not allowed when used memory > 'maxmemory'.": ServerFull,
    "NOPERM this user has no permissions to run the 'evalsha' command": ConfigError,
    "NOAUTH Authentication required.": ConfigError,
    "WRONGPASS invalid username-password pair or user is disabled.": ConfigError,
    "WRONGTYPE Operation against a key holding the wrong kind of value": MeshError,
    "ERR unknown command": MeshError,
}


def parsed(line: str) -> BaseException:
    """As redis-py hands it out: it takes the first word off where it has a class of its own."""
    return BaseParser.parse_error(line)


@pytest.mark.parametrize("line", PASSING, ids=lambda line: line.partition(" ")[0])
def test_what_passes_is_tried_again(line: str) -> None:
    assert passing(parsed(line))
    assert type(meaning(parsed(line), "there")) is StoreUnavailable


@pytest.mark.parametrize(("line", "expected"), FINAL.items(), ids=lambda line: str(line).partition(" ")[0])
def test_what_does_not_pass_is_told(line: str, expected: type[MeshError]) -> None:
    assert not passing(parsed(line))
    assert type(meaning(parsed(line), "there")) is expected
