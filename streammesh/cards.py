"""An agent's card as others write theirs: the JSON of an A2A AgentCard, made of what the registry knows.

Honest about what it is not: the agent is reached through the mesh, not by HTTP, so ``url`` names it with the scheme
`streammesh:`, and none of the optional A2A abilities (streaming, push notifications) is claimed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["PROTOCOL", "agent_card"]

#: The version of the A2A specification whose fields are used.
PROTOCOL = "0.3.0"


def agent_card(namespace: str, id: str, name: str, skills: Iterable[tuple[str, Mapping[str, str]]]) -> dict[str, Any]:
    """The card of the agent ``id``; ``skills`` are its capabilities, each with the fields of its hash (description, takes).

    Agents have no version of their own: it is always "1".
    """
    listed: list[dict[str, Any]] = [
        {
            "id": capability,
            "name": capability,
            "description": said.get("description") or f"Tasks of the capability {capability}.",
            "tags": ["streammesh", *([f"takes: {said['takes']}"] if said.get("takes") else [])],
        }
        for capability, said in skills
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
