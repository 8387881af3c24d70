"""How things look: tables, single values, JSON, moments and durations. stdout is data, stderr is talk."""

from __future__ import annotations

import json
import shutil
import sys
import time
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from streammesh.moments import duration, iso

__all__ = ["Output", "clean", "milliseconds"]

#: State of a task or an agent -> colour.
COLOURS = {
    "succeeded": "green", "ready": "green", "running": "cyan", "queued": "yellow", "delayed": "yellow", "starting": "yellow",
    "parked": "blue", "paused": "yellow", "stuck": "red", "waiting": "yellow", "fired": "green", "dropped": "magenta",
    "open": "cyan", "decided": "green", "tie": "yellow", "no_majority": "yellow", "no_quorum": "red",
    "failed": "red", "dead": "red", "died": "red", "expired": "magenta", "cancelled": "magenta", "draining": "magenta",
}  # fmt: skip


class Output:
    """The way out of one command, as the global options want it.

    ``json``: JSON for programs; ``quiet``: ids only, no notices; ``color``: always, never, or None for a terminal;
    ``time``: relative, iso or ms, or None for relative on a terminal and ISO elsewhere.
    """

    def __init__(self, *, json: bool, quiet: bool, color: bool | None, time: str | None) -> None:
        self._talk = color
        self.json = json
        self.quiet = quiet
        self.tty = sys.stdout.isatty()
        self.color = self.tty if color is None else color
        self.time = time or ("relative" if self.tty else "iso")
        self._width = shutil.get_terminal_size().columns if self.tty else 0

    # -- data

    def line(self, text: str = "") -> None:
        """One line of data."""
        click.echo(text, color=self.color)

    def object(self, value: Any) -> None:
        """One JSON object; indented for people at a terminal."""
        click.echo(json.dumps(value, ensure_ascii=False, indent=2 if self.tty else None, default=str))

    def lines(self, values: Iterable[Mapping[str, Any]]) -> None:
        """JSON Lines."""
        for value in values:
            click.echo(json.dumps(value, ensure_ascii=False, default=str))

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Iterable[str] = ()) -> None:
        """Aligned columns; on a terminal the last one is cut where the line ends. States have their colour."""
        for line in self.tabular(heads, rows, right=right):
            self.line(line)

    def tabular(self, heads: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Iterable[str] = ()) -> list[str]:
        """The lines of a table."""
        texts = [list(heads), *([clean(cell) for cell in row] for row in rows)]
        widths = [max(cells(row[i]) for row in texts) for i in range(len(heads))]
        flush = {heads.index(name) for name in right}
        lines = []
        for number, row in enumerate(texts):
            out = []
            for i, text in enumerate(row):
                last = i == len(row) - 1
                if last and self._width:
                    text = _cut(text, max(20, self._width - sum(widths[:-1]) - 2 * (len(heads) - 1)))
                pad = " " * (widths[i] - cells(text))
                shown = self.style(text, bold=True) if number == 0 else self.state(text)
                out.append(pad + shown if i in flush else shown if last else shown + pad)
            lines.append("  ".join(out).rstrip())
        return lines

    def pairs(self, pairs: Iterable[tuple[str, Any]]) -> None:
        """One thing as ``name  value`` lines, without the empty ones; long values go over several lines, indented."""
        listed = [(name, value) for name, value in pairs if value not in (None, "")]
        width = max((len(name) for name, _ in listed), default=0)
        for name, value in listed:
            text = clean(value, lines=True).rstrip("\n").replace("\n", "\n" + " " * (width + 2))
            self.line(f"{self.style(name.ljust(width), bold=True)}  {self.state(text)}")

    def value(self, value: Any) -> str:
        """A JSON value in text: pretty at a terminal, one line elsewhere."""
        return json.dumps(value, ensure_ascii=False, indent=2 if self.tty else None)

    # -- talk

    def note(self, text: str) -> None:
        """A notice on stderr, not with -q."""
        if not self.quiet:
            click.echo(text, err=True, color=self._talk)

    def warn(self, text: str) -> None:
        """Something that should be known, on stderr."""
        click.echo(f"{click.style('warning:', fg='yellow')} {text}", err=True, color=self._talk)

    def bad(self, text: str) -> None:
        """What became of one of many, on stderr; a state in it keeps its colour there."""
        click.echo(text, err=True, color=self._talk)

    # -- style

    def style(self, text: str, **how: Any) -> str:
        return click.style(text, **how) if self.color and text else text

    def state(self, text: str) -> str:
        """A word for a state, or a remark that begins with ``!`` or ``‖``, in its colour."""
        colour = COLOURS.get(text) or {"! ": "red", "‖ ": "yellow"}.get(text[:2])
        return self.style(text, fg=colour) if colour else text

    def moment(self, value: str | float | None, now_ms: float | None = None) -> str:
        """A point in time (ISO text, or ms) as the options want it."""
        if value in (None, ""):
            return ""
        ms = milliseconds(value)
        if ms is None:
            return str(value)
        if self.time == "ms":
            return str(int(ms))
        if self.time == "iso":
            return iso(ms)
        apart = (time.time() * 1000 if now_ms is None else now_ms) - ms
        return f"{duration(apart / 1000)} ago" if apart >= 0 else f"in {duration(-apart / 1000)}"


def milliseconds(value: str | float | None) -> float | None:
    """ms since 1970 of ISO text or of a number in text; None when it is neither."""
    if value is None:
        return None
    try:
        return float(value)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(str(value)).timestamp() * 1000
    except ValueError:
        return None


def clean(value: Any, *, lines: bool = False) -> str:
    """Text that is safe to show: what comes from tasks may hold control characters, a terminal must not obey them."""
    text = value if isinstance(value, str) else "" if value is None else str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or (lines and c == "\n") else "⏎" if c == "\n" else repr(c)[1:-1] for c in text)


def cells(text: str) -> int:
    """How many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _cut(text: str, width: int) -> str:
    if cells(text) <= width:
        return text
    while cells(text) > width - 1:
        text = text[:-1]
    return text + "…"
