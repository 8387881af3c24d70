"""To whom a request or a directed task goes, and what is tried when that one cannot: strategies, breakers, safe retries.

The choice is made from memory; only before a caller is told that nobody can, the agents are read anew, in one round trip.
A request goes to another agent when the first one surely did nothing (it was gone, it refused, it did not understand), and
after a death only when the caller says that it may run twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from itertools import count
from typing import Any

from streammesh.choice import STRATEGIES, Chosen, affine, least_loaded, two_choices
from streammesh.edges import Edges
from streammesh.errors import (
    AgentDied,
    Backpressure,
    ConfigError,
    InvalidPayload,
    MeshError,
    NoCapableAgent,
    NotUnderstood,
    Refused,
    RemoteError,
    RequestTimeout,
    UnknownAgent,
)
from streammesh.messages import Messages
from streammesh.peers import PeerInfo, Roster, why_none

__all__ = ["Asking"]

_WHY = {
    "none_registered": "none offers it",
    "all_paused": "it is paused; `streammesh caps resume` ends that",
    "all_draining": "those who offer it are starting or draining",
    "all_suspect": "those who offer it have missed their beats",
    "all_full": "those who offer it are busy in every slot",
    "all_open": "those who offer it did not answer lately and are left in peace for some seconds",
    "all_tried": "those who offer it were all tried",
}


class Asking:
    """The choice of one client among the agents of ``roster``."""

    def __init__(self, roster: Roster, messages: Messages, edges: Edges) -> None:
        self._roster = roster
        self._messages = messages
        self._edges = edges
        self._turns = count()

    # -- whom

    async def for_task(self, capability: str, strategy: str, affinity: str | None) -> str | None:
        """The id of the agent that shall have a task, None for the queue of the capability (`pull`). Raises NoCapableAgent."""
        if affinity is None and strategy == "pull":
            return None
        offers = f"no live agent can be given tasks of {capability!r}"
        return Chosen((await self._choose(lambda peer: capability in peer.capabilities, offers, strategy, affinity)).id)

    async def find(
        self,
        capability: str,
        *,
        paused: bool = False,
        version: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> list[PeerInfo]:
        """Who offers ``capability`` (in that ``version``, saying at least ``metadata`` of it): first those with free slots, the
        least busy first, then the others.

        Raises NoCapableAgent with the ``reason`` none_registered, all_paused (as ``paused`` says), all_draining,
        all_suspect or all_full, when none of them can begin a task now.
        """

        def fitting(known: list[PeerInfo]) -> list[PeerInfo]:
            return [peer for peer in known if peer.skill(capability).fits(version, metadata)]

        offering = self._roster.known(capability) if self._roster.followers else await self._roster.peers(capability)
        offering = fitting(offering)
        able = [peer for peer in offering if peer.willing and not peer.full]
        if not able or paused:
            offering = fitting(await self._roster.peers(capability, fresh=True))
            able = [peer for peer in offering if peer.willing and not peer.full]
        if not able or paused:
            what = f"nobody can begin tasks of {_described(capability, version, metadata)} now"
            raise _nobody(what, why_none(offering, paused=paused))
        return sorted(offering, key=lambda peer: (not peer.willing, peer.full, peer.load, peer.id))

    async def _choose(
        self,
        offers: Callable[[PeerInfo], bool],
        what: str,
        strategy: str,
        affinity: str | None,
        tried: Collection[str] = (),
    ) -> PeerInfo:
        if affinity is not None:
            strategy = "affinity"
        if strategy not in STRATEGIES[1:] or (strategy == "affinity" and affinity is None):
            raise ConfigError(
                f"strategy={strategy!r} is not usable: expected one of {', '.join(STRATEGIES)}; affinity needs affinity=KEY, and a request cannot pull"
            )
        offering: list[PeerInfo] = []
        for fresh in (True,) if strategy == "least-loaded" else (False, True):
            offering = [peer for peer in await self._roster.peers(fresh=fresh) if offers(peer)]
            now = time.monotonic()
            able = [
                peer
                for peer in offering
                if peer.willing and peer.id not in tried and self._edges.breaker(peer.id).allows(now)
            ]
            if able:
                return self._drawn(able, strategy, affinity or "")
        left = [peer for peer in offering if peer.id not in tried]
        why = why_none(offering) if not any(peer.willing for peer in left) else "all_open"
        raise _nobody(what, "all_tried" if offering and not left else why)

    def _drawn(self, able: list[PeerInfo], strategy: str, key: str) -> PeerInfo:
        match strategy:
            case "affinity":
                return affine(able, key)
            case "least-loaded":
                return least_loaded(able)
            case "round-robin":
                return able[next(self._turns) % len(able)]
            case _:
                # One with room, where there is one: a full agent's inbox waits.
                return two_choices([peer for peer in able if not peer.full] or able)

    # -- requests

    async def request(
        self, type: str, payload: Any, timeout: float, *, strategy: str, affinity: str | None, retries: int, idempotent: bool,
        capability: str | None = None, version: int | None = None, metadata: Mapping[str, str] | None = None,
    ) -> Any:  # fmt: skip
        """Ask one agent that understands ``type``, and up to ``retries`` others after it; see `Mesh.request`."""
        if not 0 < timeout < 10**9:
            raise InvalidPayload(f"timeout={timeout!r} is not usable: a request needs seconds above 0")
        ends = asyncio.get_running_loop().time() + timeout
        if capability is None and (version is not None or metadata):
            raise ConfigError("version= and metadata= are those of a capability: name it with capability=")
        nobody = f"no live agent can be asked {type!r}"
        if capability is not None:
            nobody += f" among those that offer {_described(capability, version, metadata)}"

        def offers(peer: PeerInfo) -> bool:
            if type not in peer.types:
                return False
            return capability is None or (
                capability in peer.capabilities and peer.skill(capability).fits(version, metadata)
            )

        tried: list[str] = []
        error: MeshError | None = None
        while True:
            try:
                to = (await self._choose(offers, nobody, strategy, affinity, tried)).id
            except NoCapableAgent:
                if error is not None:
                    raise error from None
                raise
            left = ends - asyncio.get_running_loop().time()
            if error is not None and left <= 0:
                raise error
            try:
                return await self._ask(to, type, payload, max(left, 0.001))
            except (UnknownAgent, NotUnderstood, Refused, Backpressure) as none:
                # Surely nothing was done.
                error = none
            except AgentDied as died:
                if not idempotent:
                    raise
                error = died
            tried.append(to)
            if len(tried) > retries:
                raise error

    async def _ask(self, to: str, type: str, payload: Any, timeout: float) -> Any:
        breaker = self._edges.breaker(to)
        breaker.begin(time.monotonic())
        try:
            answer = await self._edges.watch(to, self._messages.request(to, type, payload, timeout))
        except (AgentDied, RequestTimeout):
            breaker.failed(time.monotonic())
            raise
        except (RemoteError, Refused, NotUnderstood):
            breaker.succeeded()
            raise
        except BaseException:
            breaker.forget()
            raise
        breaker.succeeded()
        return answer


def _described(capability: str, version: int | None, metadata: Mapping[str, str] | None) -> str:
    said = [f"version {version}"] if version is not None else []
    said += [f"{name}={value}" for name, value in (metadata or {}).items()]
    return f"{capability!r} ({', '.join(said)})" if said else repr(capability)


def _nobody(what: str, reason: str) -> NoCapableAgent:
    return NoCapableAgent(f"{what}: {_WHY[reason]} ({reason}); see `streammesh agents ls`", reason=reason)
