"""What people type, as values: durations, points in time, and payloads as `k=v`, `k:=json`, `@file`, `-` or JSON."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

__all__ = ["DURATION", "MOMENT", "header_pairs", "payload_of", "read_text"]

_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_FIELD = re.compile(r"([^=:@\s]+)(:=|=)(.*)", re.DOTALL)


class _Duration(click.ParamType[Any]):
    """Seconds, from ``90``, ``1.5s``, ``5m``, ``1h30m``, ``2d``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        text = value.strip().lower()
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return float(text)
        if not text or _PART.sub("", text).strip():
            self.fail(f"{value!r} is no duration; expected seconds, or for example 250ms 30s 5m 1h30m 2d", param, ctx)
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


class _Moment(click.ParamType[Any]):
    """A point in time, from ISO-8601; without a zone it is local time."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return datetime.fromisoformat(value).astimezone()
        except ValueError:
            self.fail(f"{value!r} is no point in time; expected ISO-8601 such as 2026-11-22T18:30:00Z", param, ctx)


class _Until(_Duration):
    """Seconds from now, or a point in time."""

    name = "duration|time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and re.match(r"\d{4}-\d\d", value):
            return MOMENT.convert(value, param, ctx)
        return super().convert(value, param, ctx)


DURATION = _Duration()
MOMENT = _Moment()
UNTIL = _Until()


def read_text(source: str, what: str) -> str:
    """The text of ``@file`` or ``-`` (stdin). Raises UsageError."""
    if source == "-":
        if sys.stdin.isatty():
            click.echo(f"reading the {what} from the terminal; end it with Ctrl-D", err=True)
        return sys.stdin.read()
    path = source.removeprefix("@")
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"the {what} cannot be read from {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.UsageError(f"the {what} in {path} is not UTF-8 text") from None


def payload_of(payload: str | None, fields: Sequence[str]) -> dict[str, Any]:
    """The payload from ``-p`` and from fields; fields win. Raises UsageError, or InvalidPayload for JSON with a flaw."""
    from streammesh import codec

    value: dict[str, Any] = {}
    if payload is not None:
        text = read_text(payload, "payload") if payload == "-" or payload.startswith("@") else payload
        value = codec.decode_object(text)
    for field in fields:
        match = _FIELD.fullmatch(field)
        if not match:
            raise click.UsageError(
                f"{field!r} is no field; expected name=text, name:=json, name=@file or name:=@file (and the whole payload with -p)"
            )
        name, sign, said = match.groups()
        if said.startswith("@"):
            if sign == "=" and not Path(said[1:]).expanduser().is_file():
                raise click.UsageError(
                    f"{field!r}: there is no file {said[1:]}; for text that begins with @ say {name}:='\"{said}\"'"
                )
            said = read_text(said, f"field {name}")
        value[name] = codec.decode(said, what=f"value of {name!r}") if sign == ":=" else said
    return value


def header_pairs(pairs: Sequence[str]) -> dict[str, str] | None:
    """``k=v`` headers as a mapping. Raises UsageError."""
    headers = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise click.UsageError(f"--header {pair!r} is no header; expected name=value")
        headers[name] = value
    return headers or None
