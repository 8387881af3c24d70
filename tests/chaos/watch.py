"""What an agent process of the chaos run lets be seen, and how it is made wrong on purpose.

`listen_in` puts an ear to the store's one door: every claim with what it brought, every settlement with its verdict.
`mutate` changes a script in this process alone, to see whether the checker notices.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from streammesh import store
from tests.chaos.history import Execution, Recorder

__all__ = ["MUTANTS", "Ledger", "listen_in", "mutate", "mutated"]

#: The fields of one item of `task_settle` (see lua/task_settle.lua).
SETTLE_WIDTH = 8

#: Name -> (script, pattern of what is taken out, what takes its place).
MUTANTS = {
    # Whoever settles while the task runs is believed, whether it is the owner or not.
    "unfenced": (
        "task_settle",
        r"elseif r\[2\] ~= me or r\[3\] ~= attempt .*then",
        "elseif not r[1] then",
    ),
}


class Ledger:
    """What handlers did, and not only what they said: a line for each execution and for each effect, in one file for all.

    A line is one write with O_APPEND, so lines of several processes never mix, and what was written survives SIGKILL.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "ledger"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, id: str, attempt: int, agent: str, token: str = "") -> None:
        """An execution begins; or, with a token, it has its effect."""
        os.write(self._file, (json.dumps([id, attempt, agent, token]) + "\n").encode())

    def read(self) -> tuple[list[Execution], list[tuple[Execution, str]]]:
        """The executions, and the effects with their tokens."""
        rows = [json.loads(line) for line in self._path.read_text().splitlines()]
        noted = [(Execution(id, attempt, agent), token) for id, attempt, agent, token in rows]
        return [one for one, token in noted if not token], [one for one in noted if one[1]]

    def close(self) -> None:
        os.close(self._file)


def listen_in(recorder: Recorder) -> None:
    """Write down every claim and settlement of this process."""
    run = store.Store.run

    async def listening(
        self: store.Store, name: str, keys: Sequence[Any], args: Sequence[Any], link: Any = None
    ) -> Any:
        if name == "task_settle":
            return await settling(self, name, keys, args, link)
        reply = await run(self, name, keys, args, link)
        if name == "task_claim":
            for _, entry, id, attempt, _, deaths, _ in reply[0]:
                recorder.write("claim", "ok", id, attempt=attempt, agent=args[0], entry=entry, deaths=deaths)
        return reply

    async def settling(self: store.Store, name: str, keys: Sequence[Any], args: Sequence[Any], link: Any) -> Any:
        items = [args[at : at + SETTLE_WIDTH] for at in range(2, len(args), SETTLE_WIDTH)]
        for _, _, id, attempt, verb, value, *_ in items:
            said = value.decode() if isinstance(value, bytes) else str(value)
            recorder.settling(id, attempt, args[0], verb, said)
        verdicts: Sequence[str] = [""] * len(items)
        try:
            verdicts = await run(self, name, keys, args, link)
        finally:
            for item, verdict in zip(items, verdicts, strict=True):
                recorder.settled(item[2], item[3], args[0], verdict)
        return verdicts

    store.Store.run = listening  # type: ignore[method-assign]


def mutated(name: str) -> store.Script:
    """The script with the mistake in it. Raises ValueError when the mutant does not fit the script any more."""
    wrong, there, instead = MUTANTS[name]
    script = store.load_script(wrong)
    text, count = re.subn(there, instead, script.text)
    if count != 1:
        raise ValueError(f"mutant {name!r}: {there!r} is found {count} times in lua/{wrong}.lua")
    return replace(script, text=text, digest=hashlib.sha1(text.encode()).hexdigest())


def mutate(name: str) -> None:
    """Run a changed script in this process instead of the real one."""
    wrong = mutated(name)
    load = store.load_script

    @cache
    def mutant(name: str, *, shebang: bool = True, movable: bool = False) -> store.Script:
        return wrong if name == wrong.name else load(name, shebang=shebang, movable=movable)

    store.load_script = mutant
