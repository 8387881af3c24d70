"""As much of JSON Schema as the tests need: what is wrong with a value, in words; nothing when it is valid."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["broken"]

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "integer": (int,), "boolean": (bool,),
}  # fmt: skip


def broken(value: Any, schema: Mapping[str, Any], where: str = "$") -> list[str]:
    """Every place of ``value`` that is not as ``schema`` says (type, const, minLength, pattern of the whole, required, …)."""
    if "const" in schema:
        return [] if value == schema["const"] else [f"{where} is {value!r}, expected {schema['const']!r}"]
    kind = schema.get("type")
    if kind is not None and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return [f"{where} is {type(value).__name__}, expected {kind}"]
    found: list[str] = []
    if isinstance(value, str):
        if len(value) < schema.get("minLength", 0):
            found.append(f"{where} is too short")
        if "pattern" in schema and not re.fullmatch(schema["pattern"], value):
            found.append(f"{where} is {value!r}, expected {schema['pattern']}")
    if isinstance(value, list):
        for n, item in enumerate(value):
            found += broken(item, schema.get("items", {}), f"{where}[{n}]")
    if isinstance(value, dict):
        known = schema.get("properties", {})
        found += [f"{where} lacks {name}" for name in schema.get("required", ()) if name not in value]
        if schema.get("additionalProperties") is False:
            found += [f"{where} has {name}" for name in value if name not in known]
        for name, below in known.items():
            if name in value:
                found += broken(value[name], below, f"{where}.{name}")
    return found
