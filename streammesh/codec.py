"""JSON in and out, with limits. The only module that imports orjson.

What comes in may be anything that somebody typed into ``redis-cli``: every bad text is one typed error
that names the flaw, found before a handler sees it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import orjson

from streammesh.errors import InvalidPayload, PayloadTooLarge

__all__ = ["MAX_BYTES", "MAX_DEPTH", "decode", "decode_object", "either", "encode", "is_text", "pretty"]

#: The most bytes a payload, result or message may have.
MAX_BYTES = 1024 * 1024
#: The most levels of brackets.
MAX_DEPTH = 64

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))


def encode(value: Any, *, limit: int = MAX_BYTES, what: str = "payload", sort: bool = False) -> bytes:
    """Encode ``value`` as UTF-8 JSON.

    ``sort`` orders the keys, so that equal payloads are equal bytes. Raises InvalidPayload when the value is not
    JSON (NaN and infinities included) or too deep, PayloadTooLarge past ``limit`` bytes.
    """
    try:
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS) if sort else orjson.dumps(value)
    except (orjson.JSONEncodeError, RecursionError) as error:
        raise InvalidPayload(
            f"the {what} is not JSON: {error}; use str, int, float, bool, None, list and dict"
        ) from None
    if len(text) > limit:
        raise PayloadTooLarge(
            f"the {what} has {len(text)} bytes, {limit} are allowed; store it elsewhere and pass a reference"
        )
    _check_depth(text, what)
    # orjson writes NaN and infinities as null; only a text with a null can hold one, and that is rare enough to look.
    if b"null" in text and _has_nan(value):
        raise InvalidPayload(f"the {what} holds NaN or an infinity, which JSON has not; use null or a string")
    return text


def _has_nan(value: Any) -> bool:
    if isinstance(value, float):
        return value != value or value in (float("inf"), float("-inf"))
    if isinstance(value, dict):
        return any(_has_nan(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_has_nan(item) for item in value)
    return False


def decode(text: str | bytes, *, limit: int = MAX_BYTES, what: str = "payload") -> Any:
    """Decode JSON ``text`` under the limits of this module.

    Raises InvalidPayload (not UTF-8, not JSON, NaN, a duplicate key, too deep, an integer beyond 64 bits) or
    PayloadTooLarge.
    """
    if isinstance(text, str):
        try:
            text = text.encode()
        except UnicodeEncodeError:
            raise InvalidPayload(f"the {what} is not UTF-8 text; expected JSON") from None
    if len(text) > limit:
        raise PayloadTooLarge(f"the {what} has {len(text)} bytes, {limit} are allowed")
    _check_depth(text, what)
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidPayload(f"the {what} is not JSON: {error}") from None
    # What we wrote ourselves comes back to the byte. Anything else is looked at closely: orjson takes the last of
    # two equal keys and turns huge integers into floats, both in silence.
    if type(value) in (dict, list) and orjson.dumps(value) != text:
        _inspect(text, what)
    return value


def decode_object(text: str | bytes, *, limit: int = MAX_BYTES, what: str = "payload") -> dict[str, Any]:
    """As decode, and the text must be a JSON object; blank text is an empty one."""
    if not text or text.isspace():
        return {}
    value = decode(text, limit=limit, what=what)
    if type(value) is not dict:
        raise InvalidPayload(f'the {what} is a JSON {_kind(value)}; expected an object such as {{"text": "hi"}}')
    return value


def is_text(value: object) -> bool:
    """Whether ``value`` is a str that UTF-8 can carry (a lone surrogate it cannot)."""
    try:
        return isinstance(value, str) and bool(value.encode() or True)
    except UnicodeEncodeError:
        return False


def pretty(value: Any) -> str:
    """Indented JSON for people."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def _kind(value: Any) -> str:
    names = {list: "array", str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
    return names.get(type(value), "value")


def _check_depth(text: bytes, what: str) -> None:
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise InvalidPayload(f"the {what} is nested deeper than {MAX_DEPTH} levels")


def _depth(text: bytes) -> int:
    """The deepest bracket level outside strings, up to one past the limit; runs only on texts with many brackets.

    Rounds of taking `[]` away, each in C: the innermost level goes with every round.
    """
    bare = b"".join(text.split(b'"')[::2]) if b"\\" not in text else _STRING.sub(b"", text)
    brackets = bare.translate(_ONE_KIND, _NO_BRACKET)
    levels = 0
    while brackets and levels <= MAX_DEPTH:
        fewer = brackets.replace(b"[]", b"")
        if len(fewer) == len(brackets):
            # Not balanced, so no JSON: what is left open is as deep as it looks.
            return levels + brackets.count(b"[")
        brackets = fewer
        levels += 1
    return levels


def _inspect(text: bytes, what: str) -> None:
    def pairs(items: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in items:
            if key in seen:
                raise InvalidPayload(f"the {what} has the key {key[:80]!r} twice in one object")
            seen.add(key)

    def integer(digits: str) -> None:
        if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:
            raise InvalidPayload(f"the {what} holds an integer beyond 64 bits; pass it as a string")

    def constant(word: str) -> NoReturn:
        raise InvalidPayload(f"the {what} holds {word}, which JSON has not")

    json.loads(text, object_pairs_hook=pairs, parse_int=integer, parse_constant=constant)


def either(payload: Mapping[str, Any] | None, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The one of the two that was given: a whole payload, or its fields as keyword arguments. Raises InvalidPayload for both."""
    if payload is None:
        return fields
    if fields:
        raise InvalidPayload(
            f"a payload and the field {next(iter(fields))!r} are both given; put the field into the payload, or give fields alone"
        )
    return payload
