"""Reading README.md as its reader does: files are saved, commands are typed into one shell, outputs are compared.

What a block is, says its first word. ```python begins with `# name.py` and is saved under that name. ```sh is typed line by
line. ```console shows what `$ ` lines print: all of it, where `…` stands for anything. Ids, moments, durations, decimals,
the numbers of agents and the space between words may differ. `# exit 6` at the end of a command is the exit code that it must have (else 0).
A line that serves (`streammesh dev`, `streammesh agent`) is left running until the end, when it has to drain.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.eventually import eventually_sync

__all__ = ["Block", "Line", "Shell", "blocks", "looks_like", "spans"]

SERVES = re.compile(r"streammesh (dev|agent)\b(?!.*--burst)")
DRAINED = 143


@dataclass(frozen=True)
class Line:
    """One command: where it stands, what is typed, what it should print (None: anything), and its exit code."""

    number: int
    command: str
    expected: str | None
    code: int

    @property
    def words(self) -> list[str]:
        return shlex.split(self.command, comments=True)

    @property
    def serves(self) -> bool:
        return bool(SERVES.match(self.command))


@dataclass(frozen=True)
class Block:
    """One fenced block; ``number`` is the line of its fence."""

    number: int
    kind: str
    text: str

    @property
    def name(self) -> str:
        """The file that a python block is saved as."""
        return self.text.partition("\n")[0].removeprefix("# ")

    def lines(self) -> Iterator[Line]:
        """The commands of an sh or console block."""
        rows = list(enumerate(self.text.splitlines(), self.number + 1))
        while rows:
            number, row = rows.pop(0)
            if self.kind == "sh":
                if row.strip() and not row.startswith("#"):
                    yield Line(number, row, None, _code(row))
                continue
            assert row.startswith("$ "), f"line {number}: a console block begins with a command, got {row!r}"
            printed = []
            while rows and not rows[0][1].startswith("$ "):
                printed.append(rows.pop(0)[1])
            yield Line(number, row[2:], "\n".join(printed), _code(row))


def _code(row: str) -> int:
    found = re.search(r"# exit (\d+)$", row)
    return int(found[1]) if found else 0


def blocks(markdown: str) -> list[Block]:
    """The fenced blocks of a text, in order."""
    found = []
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL):
        found.append(Block(markdown[: match.start()].count("\n") + 1, match[1], match[2]))
    return found


def spans(markdown: str) -> list[str]:
    """What stands between single backticks, outside of blocks."""
    prose = re.sub(r"^```.*?^```$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", prose)


#: What differs from run to run -> what stands for it. Earlier ones first.
VARYING = (
    (r"\b[0-9a-f]{23}\b", "ID"),
    (r"\d{13}-\d+", "ENTRY"),
    (r"\b(\d+(\.\d+)?(ms|s|m|h|d))+\b", "SPAN"),
    (r"\b([a-z]+)\.\d+\b", r"\1.N"),
    (r"\d+(\.\d+)+", "DECIMAL"),
)


def _plain(text: str) -> str:
    for pattern, word in VARYING:
        text = re.sub(pattern, word, text)
    return re.sub(r"\s+", "", text)


def looks_like(printed: str, expected: str) -> bool:
    """Whether that was printed which the README shows."""
    pattern = ".*".join(re.escape(part) for part in _plain(expected).split("…"))
    return re.fullmatch(pattern, _plain(printed), re.DOTALL) is not None


class Shell:
    """One bash in one folder, as in a terminal; what serves runs beside it."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        self._serving: list[tuple[str, int, Path]] = []

    def type(self, command: str, timeout: float = 60.0) -> tuple[str, int]:
        """Run a command; returns what it printed, on either stream, and its exit code."""
        assert self._bash.stdin
        # Commands must not read the ones that come after them.
        self._bash.stdin.write(f"{{ {command}\n}} </dev/null\nprintf '\\n\\a%s\\a\\n' $?\n".encode())
        self._bash.stdin.flush()
        said = self._read(time.monotonic() + timeout, command)
        text, _, code = said.removesuffix("\a\n").rpartition("\n\a")
        return text, int(code)

    def _read(self, end: float, command: str) -> str:
        assert self._bash.stdout
        said = b""
        while not re.search(rb"\n\x07\d+\x07\n\Z", said):
            ready, _, _ = select.select([self._bash.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError(f"{command!r} is not through; so far it printed:\n{said.decode(errors='replace')}")
            more = os.read(self._bash.stdout.fileno(), 65536)
            if not more:
                raise EOFError(f"the shell ended with {command!r}; it printed:\n{said.decode(errors='replace')}")
            said += more
        return said.decode(errors="replace")

    def serve(self, command: str, timeout: float = 30.0) -> str:
        """Start what serves, and return its log once its agents are ready."""
        log = self._folder / f".serving-{len(self._serving)}.log"
        log.touch()  # the shell makes it only when it gets round to it
        # A process of its own rather than a job of the shell's: `exec` makes its pid the one that is to be ended.
        pid, _ = self.type(f"( exec {command.partition(' #')[0]} ) >{shlex.quote(str(log))} 2>&1 & echo $!")
        self._serving.append((command, int(pid), log))
        processes = re.search(r"--processes (\d+)", command)
        wanted = int(processes[1]) if processes else 2 if " dev " in command else 1

        def ready() -> bool:
            assert log.read_text().count(" ready ") >= wanted, log.read_text()
            return True

        def ended() -> bool:
            return not _lives(int(pid))

        eventually_sync(lambda: ended() or ready(), timeout, f"{command!r} has {wanted} agents ready")
        assert not ended(), f"{command!r} ended at once; it printed:\n{log.read_text()}"
        return log.read_text()

    def close(self) -> dict[str, int]:
        """End what serves, the last one first, and the shell; returns command -> exit code."""
        codes = {}
        try:
            for command, pid, log in reversed(self._serving):
                _, code = self.type(f"kill -TERM {pid}; wait {pid}")
                codes[command] = code if "Traceback" not in log.read_text() else 1
            self._bash.communicate(timeout=10)
        except (TimeoutError, EOFError, BrokenPipeError):
            # A command that does not end keeps the shell. What serves can still leave in order, and takes its server along.
            for _, pid, _ in self._serving:
                if _lives(pid):
                    os.kill(pid, signal.SIGTERM)
            eventually_sync(lambda: not any(_lives(pid) for _, pid, _ in self._serving), timeout=30)
            os.killpg(self._bash.pid, signal.SIGKILL)
            self._bash.communicate(timeout=10)
            raise
        return codes


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie answers as well.
    with open(f"/proc/{pid}/stat") if os.path.exists(f"/proc/{pid}/stat") else open(os.devnull) as stat:
        return ") Z " not in stat.read()
