"""What an agent does when it is asked to vote, or to give an answer to a collection: the handlers of those messages.

The message stays in the agent's inbox until its ballot is cast: when the agent dies before, the script that clears its inbox
tells the vote.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from streammesh import codec
from streammesh.envelope import Message
from streammesh.errors import VoteNotFound
from streammesh.handlers import in_thread, told
from streammesh.hearing import Hearing
from streammesh.mesh import Mesh
from streammesh.motions import Ballot, said_of, words_of
from streammesh.tending import Tending

__all__ = ["polling"]

_log = logging.getLogger("streammesh.agent")


class AtWork(Protocol):
    """What is asked of the agent at work (`Serving`)."""

    id: str
    hearing: Hearing
    tending: Tending


def polling(agent: AtWork, mesh: Mesh, voters: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Message type -> its handler. ``voters`` is topic -> what the agent says to it."""

    async def cast(message: Message, words: str, said: bytes) -> None:
        vote, round = message.headers.get("vote", ""), message.headers.get("round", "")
        try:
            receipt = await mesh.votes.cast(vote, agent.id, words, said, round=round, refused=False)
        except VoteNotFound:
            _log.warning("agent=%s vote %s is gone, nobody wants the ballot", agent.id, vote)
            return
        if receipt.state == "open":
            agent.tending.put_off(receipt.left)

    async def vote(message: Message) -> None:
        topic = message.headers.get("topic", "")
        voter = voters.get(topic)
        if voter is None:
            known = ", ".join(sorted(voters)) or "none"
            await cast(message, f"invalid no voter for topic {topic} (there is: {known})", b"null")
            return
        paper = message.payload
        eligible = [paper["options"][int(n) - 1] for n in message.headers.get("eligible", "").split()]
        ballot = Ballot(
            paper["vote"], paper["question"], tuple(eligible), topic, paper["method"], paper["payload"],
            int(message.headers.get("round", "1")), agent.id, message.correlation,
        )  # fmt: skip
        try:
            if inspect.iscoroutinefunction(voter):
                choice = await voter(ballot)
            else:
                choice = await asyncio.to_thread(in_thread, partial(voter, ballot))
            words, said = words_of(choice, paper["options"]), said_of(choice)
        except Exception as error:
            _log.exception("agent=%s could not vote in %s", agent.id, ballot.vote)
            words, said = f"invalid {told(error)}", b"null"
        await cast(message, words, said)

    async def collect(message: Message) -> None:
        fields = {
            "type": message.headers.get("topic", ""), "payload": codec.encode(message.payload).decode(), "id": message.id,
            "source": message.source, "correlation": message.correlation, "vote": message.headers.get("vote", ""),
        }  # fmt: skip
        try:
            word, _, said = (await agent.hearing.hear(fields)).partition(" ")
        except Exception as error:
            _log.exception("agent=%s could not answer collection %s", agent.id, fields["vote"])
            word, said = "failed", told(error)
        await cast(message, f"answer {said}" if word == "replied" else f"invalid {said}", b"null")

    return {"vote.open": vote, "collect.ask": collect}
