"""`redis-cli` for machines that have none: as much of it as README.md uses, over redis-py, printing as on a terminal.

    python -m tests.redis_cli [-s SOCKET | -p PORT] [-n DATABASE] [-x] [--scan --pattern P] COMMAND…

Exits 1 when the server refuses the command (the real one does so with -e).
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import redis

__all__ = ["shown"]


def shown(reply: Any, indent: str = "") -> str:
    """A reply as redis-cli writes it on a terminal."""
    if isinstance(reply, list):
        if not reply:
            return "(empty array)"
        width = len(str(len(reply)))
        lines: list[str] = []
        for number, item in enumerate(reply, 1):
            head = f"{number:>{width}}) "
            lines.append((indent if lines else "") + head + shown(item, indent + " " * len(head)))
        return "\n".join(lines)
    if reply is None:
        return "(nil)"
    if isinstance(reply, int):
        return f"(integer) {reply}"
    if isinstance(reply, Exception):
        return f"(error) {reply}"
    return '"' + str(reply).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def main() -> int:
    parser = argparse.ArgumentParser(prog="redis-cli", add_help=False)
    parser.add_argument("-s", dest="socket")
    parser.add_argument("-p", dest="port", type=int, default=6379)
    parser.add_argument("-n", dest="database", type=int, default=0)
    parser.add_argument("-x", action="store_true", dest="last_from_stdin")
    parser.add_argument("--scan", action="store_true")
    parser.add_argument("--pattern", default="*")
    parser.add_argument("words", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    client = redis.Redis(
        port=given.port, unix_socket_path=given.socket, db=given.database, protocol=2, decode_responses=True
    )
    # Raw replies: redis-py would make dictionaries of some.
    client.response_callbacks.clear()
    if given.scan:
        cursor = "0"
        while True:
            cursor, keys = client.execute_command("SCAN", cursor, "MATCH", given.pattern)
            sys.stdout.writelines(shown(key) + "\n" for key in keys)
            if str(cursor) == "0":
                return 0
    words = [*given.words, sys.stdin.read()] if given.last_from_stdin else given.words
    try:
        sys.stdout.write(shown(client.execute_command(*words)) + "\n")
    except redis.ResponseError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
