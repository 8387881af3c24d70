"""An agent's card as others write theirs: the JSON of an A2A AgentCard, made of what the registry knows.

Honest about what it is not: the agent is reached through the mesh, not by HTTP, so ``url`` names it with the scheme
`streammesh:`, and none of the optional A2A abilities (streaming, push notifications) is claimed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from streammesh import codec
from streammesh.errors import PayloadError

__all__ = ["PROTOCOL", "Skill", "agent_card", "read_skills", "write_skills"]

#: The version of the A2A specification whose fields are used.
PROTOCOL = "0.3.0"


@dataclass(frozen=True, slots=True)
class Skill:
    """What one agent says of one of its capabilities, for those who choose among agents. Queues know nothing of it."""

    version: int = 1
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)

    def fits(self, version: int | None, metadata: Mapping[str, str] | None) -> bool:
        """Whether it is that version (None: any) and says at least that of itself."""
        return (version is None or version == self.version) and (metadata or {}).items() <= self.metadata.items()

    def tags(self) -> list[str]:
        """As words: 'version: 2', 'lang: de'."""
        version = [f"version: {self.version}"] if self.version != 1 else []
        return version + [f"{name}: {value}" for name, value in sorted(self.metadata.items())]


def write_skills(skills: Iterable[tuple[str, Skill]]) -> str:
    """As it stands in the registry: JSON of those that are not plain version 1, '' when all are."""
    said = {name: {"version": skill.version, **({"metadata": dict(skill.metadata)} if skill.metadata else {})} for name, skill in skills if skill != Skill()}  # fmt: skip
    return codec.encode(said, what="skills", sort=True).decode() if said else ""


def read_skills(text: str) -> dict[str, Skill]:
    """What `write_skills` wrote; what cannot be understood, by whomever it was written, counts as not said."""
    if not text:
        return {}
    try:
        said = codec.decode_object(text)
        return {
            name: Skill(int(one.get("version", 1)), {str(key): str(value) for key, value in one.get("metadata", {}).items()})
            for name, one in said.items()
        }  # fmt: skip
    except (PayloadError, AttributeError, TypeError, ValueError):
        return {}


def agent_card(
    namespace: str,
    id: str,
    name: str,
    skills: Iterable[tuple[str, Mapping[str, str]]],
    said: Mapping[str, Skill] | None = None,
) -> dict[str, Any]:
    """The card of the agent ``id``; ``skills`` are its capabilities, each with the fields of its hash (description, takes).

    ``said`` is what it says of them itself: versions and metadata become tags.

    Agents have no version of their own: it is always "1".
    """
    listed: list[dict[str, Any]] = [
        {
            "id": capability,
            "name": capability,
            "description": about.get("description") or f"Tasks of the capability {capability}.",
            "tags": [
                "streammesh",
                *([f"takes: {about['takes']}"] if about.get("takes") else []),
                *(said or {}).get(capability, Skill()).tags(),
            ],
        }
        for capability, about in skills
    ]
    offers = ", ".join(skill["id"] for skill in listed) or "nothing but messages"
    return {
        "protocolVersion": PROTOCOL,
        "name": name,
        "description": f"An agent of the streammesh mesh {namespace!r}; it offers {offers}.",
        "url": f"streammesh:{namespace}/{id}",
        "version": "1",
        "capabilities": {"streaming": False, "pushNotifications": False, "stateTransitionHistory": False},
        "defaultInputModes": ["application/json"],
        "defaultOutputModes": ["application/json"],
        "skills": listed,
    }
