"""What people type: durations, points in time, fields and payloads, and the words for what is wrong with them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

from streammesh.cli.output import clean
from streammesh.cli.parameters import DURATION, MOMENT, UNTIL, header_pairs, payload_of
from streammesh.errors import InvalidPayload
from streammesh.moments import duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5", 1.5),
        ("250ms", 0.25),
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("2d", 172800),
        ("1w", 604800),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert DURATION.convert(text, None, None) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "5 parsecs", "-5", "5m!", "1h 3x"])
def test_what_is_no_duration_says_what_would_be_one(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no duration; expected seconds, or for example"):
        DURATION.convert(text, None, None)


def test_moments_carry_a_zone() -> None:
    assert MOMENT.convert("2030-01-02T03:04:05Z", None, None) == datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert MOMENT.convert("2030-01-02T03:04:05", None, None).tzinfo is not None
    assert UNTIL.convert("2030-01-02", None, None).year == 2030
    assert UNTIL.convert("5m", None, None) == 300
    with pytest.raises(click.BadParameter, match="ISO-8601"):
        MOMENT.convert("tomorrow", None, None)


def test_a_payload_from_fields_files_and_json(tmp_path: Path) -> None:
    text, data = tmp_path / "note.txt", tmp_path / "data.json"
    text.write_text("hello = world\n")
    data.write_text('{"a": [1, 2]}')
    fields = ["to=ada@example.com", "n:=3", "empty=", f"text=@{text}", f"data:=@{data}", "url=http://x/?a=b"]
    assert payload_of('{"n": 1, "kept": true}', fields) == {
        "n": 3, "kept": True, "to": "ada@example.com", "empty": "", "text": "hello = world\n", "data": {"a": [1, 2]},
        "url": "http://x/?a=b",
    }  # fmt: skip
    assert payload_of(f"@{data}", []) == {"a": [1, 2]}


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ("name", "is no field; expected name=text"),
        ("=x", "is no field"),
        ("text=@nowhere.txt", "there is no file nowhere.txt; for text that begins with @ say text:="),
        ("data:=@nowhere.json", "cannot be read from nowhere.json: No such file"),
    ],
)
def test_a_field_that_cannot_be_used(field: str, says: str) -> None:
    with pytest.raises(click.UsageError, match=says):
        payload_of(None, [field])


@pytest.mark.parametrize("text", ["[1]", "{", '{"a": NaN}', '{"a": 1, "a": 2}', "nonsense"])
def test_a_payload_that_is_no_object(text: str) -> None:
    with pytest.raises(InvalidPayload):
        payload_of(text, [])


def test_headers() -> None:
    assert header_pairs(["a=b", "c=d=e"]) == {"a": "b", "c": "d=e"}
    assert header_pairs([]) is None
    with pytest.raises(click.UsageError, match="expected name=value"):
        header_pairs(["a"])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.04, "0s"), (3.21, "3.2s"), (9.96, "10s"), (59.6, "1m00s"), (192, "3m12s"), (7500, "2h05m"), (273600, "3d4h"), (None, "")],
)  # fmt: skip
def test_spans_as_people_say_them(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_a_terminal_does_not_obey_what_a_task_says() -> None:
    assert clean("a\x1b[31mb\x07\r\nc") == "a\\x1b[31mb\\x07\\r⏎c"
    assert clean("a\nb", lines=True) == "a\nb"
