"""A vote before it is opened and after it is closed: the motion that is put, the ballot that a voter gets, the decision.

Nothing here talks to a server. What could not come to anything is refused when the motion is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from hashlib import sha256
from typing import Any, TypedDict

from streammesh import codec
from streammesh.errors import InvalidVote, PayloadError, TooFewAnswers
from streammesh.keys import check_id

__all__ = [
    "METHODS",
    "TIES",
    "Ballot",
    "Collected",
    "Decision",
    "Gathering",
    "Limits",
    "Motion",
    "Poll",
    "Veto",
    "Voters",
    "collected",
    "said_of",
    "weighed",
    "words_of",
]

#: Method -> its threshold: (numerator, denominator, whether it must be passed).
METHODS: dict[str, tuple[int, int, bool]] = {
    "plurality": (0, 1, False), "majority": (1, 2, True), "weighted": (1, 2, True), "supermajority": (2, 3, False),
    "unanimity": (1, 1, False), "approval": (0, 1, False), "ranked": (1, 2, True),
}  # fmt: skip
TIES = ("no_decision", "priority", "hash", "runoff", "status_quo:<option>", "chair:<agent>")
#: The most options, voters and weight of one voter: sums stay whole numbers in every interpreter.
MOST_OPTIONS, MOST_VOTERS, MOST_WEIGHT = 100, 1000, 10**9

#: Who votes: None (all who declare the topic), a capability, agents (ids or names), or agents with weights.
Voters = str | Sequence[str] | Mapping[str, int] | None


class Poll(TypedDict, total=False):
    """The options of `Mesh.vote`, `Run.vote` and `Motion.make`."""

    topic: str
    payload: Any
    method: str
    threshold: float | None
    basis: str
    quorum: int | None
    deadline: float
    tie: str
    veto: bool
    change: str
    barred: Mapping[str, Sequence[str]]


class Limits(TypedDict, total=False):
    """The options of `Mesh.collect` and `Run.collect`: when it ends."""

    expected: int | None
    at_least: int
    timeout: float
    stall: float | None


@dataclass(frozen=True, slots=True)
class Veto:
    """A ballot that puts one option out, where the vote was opened with ``veto=True``."""

    option: str


@dataclass(frozen=True, slots=True)
class Ballot:
    """What a voter is asked. Answer one of ``options``, a list of them (approval, ranked), a Veto, or None to abstain."""

    vote: str
    question: str
    options: tuple[str, ...]
    topic: str
    method: str
    payload: Any
    round: int
    voter: str
    correlation: str = ""


@dataclass(frozen=True, slots=True)
class Motion:
    """A question put to the vote, with its rules; checked. ``deadline`` in seconds, ``quorum`` in voters (None: more than half)."""

    question: str
    options: tuple[str, ...]
    topic: str
    payload: Any
    method: str
    need: int
    of: int
    strict: bool
    basis: str
    quorum: int | None
    deadline: float
    tie: str
    about: str
    veto: bool
    change: str
    #: Agent -> options that it may not choose (its own, say).
    barred: Mapping[str, Sequence[str]]

    @staticmethod
    def make(
        question: str, options: Iterable[str], *, topic: str = "default", payload: Any = None, method: str = "majority",
        threshold: float | None = None, basis: str = "cast", quorum: int | None = None, deadline: float = 30.0,
        tie: str = "no_decision", veto: bool = False, change: str = "first",
        barred: Mapping[str, Sequence[str]] | None = None,
    ) -> Motion:  # fmt: skip
        """Check a motion. Raises InvalidVote."""
        listed = tuple(options) if not isinstance(options, str) else ()
        if not codec.is_text(question) or not question.strip():
            raise InvalidVote(f"question={question!r:.80} is not usable: expected a text")
        if not 2 <= len(listed) <= MOST_OPTIONS or not all(codec.is_text(one) and one for one in listed):
            raise InvalidVote(f"options={options!r:.120} are not usable: expected a list of 2 to {MOST_OPTIONS} texts")
        twice = sorted({one for one in listed if listed.count(one) > 1})
        if twice:
            raise InvalidVote(f"the option {twice[0]!r:.80} is there twice; each ballot could mean either")
        if method not in METHODS:
            raise InvalidVote(f"method={method!r} is not known; expected one of {', '.join(METHODS)}")
        need, of, strict = METHODS[method]
        if threshold is not None:
            if method != "supermajority":
                raise InvalidVote(f"threshold= is for method='supermajority'; {method} has its own")
            if not 0.5 < threshold <= 1:
                raise InvalidVote(f"threshold={threshold} is not usable: expected more than 0.5, and at most 1")
            exact = Fraction(threshold).limit_denominator(1000)
            need, of = exact.numerator, exact.denominator
        if basis not in ("cast", "electorate"):
            raise InvalidVote(f"basis={basis!r} is not known; expected cast (of the votes cast) or electorate (of all)")
        if change not in ("first", "last"):
            raise InvalidVote(
                f"change={change!r} is not known; expected first (a ballot stands) or last (the last counts)"
            )
        _check_seconds("deadline", deadline)
        kind, _, about = tie.partition(":")
        if kind not in {one.partition(":")[0] for one in TIES} or (kind in ("status_quo", "chair")) != bool(about):
            raise InvalidVote(f"tie={tie!r} is not known; expected one of {', '.join(TIES)}")
        if kind == "status_quo" and about not in listed:
            raise InvalidVote(f"tie={tie!r:.80}: the status quo must be one of the options")
        for agent, options in (barred or {}).items():
            if isinstance(options, str) or not set(options) <= set(listed):
                raise InvalidVote(
                    f"barred={{{agent!r}: {options!r:.80}}} is not usable: expected a list of options of this vote"
                )
        return Motion(
            question, listed, check_id(topic, "topic"), payload, method, need, of, strict, basis, quorum, float(deadline), kind,
            about, veto, change, dict(barred or {}),
        )  # fmt: skip

    def fields(self, id: str, electorate: Mapping[str, int], *, weighted: bool = False) -> dict[str, str | bytes | int]:
        """The fields of its hash, as the script takes them. Raises InvalidVote where electorate and rules do not fit."""
        if self.method == "weighted" and not weighted:
            raise InvalidVote("method='weighted' needs weights: voters={'ann': 3, 'bob': 1}")
        quorum = len(electorate) // 2 + 1 if self.quorum is None else self.quorum
        if not 1 <= quorum <= len(electorate):
            raise InvalidVote(
                f"quorum={quorum} is not usable: there are {len(electorate)} voters; expected 1 to {len(electorate)}"
            )
        chair = (
            next((one for one in electorate if self.about in (one, one.rpartition(".")[0])), "")
            if self.tie == "chair"
            else ""
        )
        if self.tie == "chair" and not chair:
            raise InvalidVote(
                f"tie='chair:{self.about}': the chair must be one of the voters: {', '.join(sorted(electorate))}"
            )
        paper = {
            "vote": id, "question": self.question, "options": list(self.options), "topic": self.topic, "method": self.method,
            "payload": self.payload,
        }  # fmt: skip
        numbers = range(1, len(self.options) + 1)
        lots = sorted(numbers, key=lambda n: sha256(f"{id}\0{self.options[n - 1]}".encode()).digest())
        spec = [
            self.question,
            *self.options,
            self.method,
            self.need,
            self.of,
            self.basis,
            self.tie,
            self.about,
            self.veto,
            self.topic,
        ]
        barred = [f"{agent} {self.options.index(one) + 1}" for agent, out in self.barred.items() for one in out]
        return {
            **({"barred": " ".join(barred)} if barred else {}),
            "question": self.question, "topic": self.topic, "method": self.method, "options": len(self.options),
            **{f"option.{n}": self.options[n - 1] for n in numbers}, "eligible": " ".join(map(str, numbers)),
            "lots": " ".join(map(str, lots)), "need": self.need, "of": self.of, "strict": int(self.strict), "basis": self.basis,
            "quorum": quorum, "lasts": int(self.deadline * 1000), "tie": self.tie,
            "status_quo": self.options.index(self.about) + 1 if self.tie == "status_quo" else "",
            "chair": chair, "veto": int(self.veto), "change": self.change,
            "electorate": roll(electorate), "paper": codec.encode(paper, what="vote"),
            "spec": sha256(codec.encode(spec + barred)).hexdigest()[:16],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Gathering:
    """A collection of answers before it is opened, checked. ``timeout`` and ``stall`` in seconds."""

    type: str
    payload: Any
    expected: int | None
    at_least: int
    timeout: float
    stall: float | None

    @staticmethod
    def make(
        type: str, payload: Any = None, *, expected: int | None = None, at_least: int = 1, timeout: float = 30.0, stall: float | None = None
    ) -> Gathering:  # fmt: skip
        """Check a collection. Raises InvalidVote."""
        _check_seconds("timeout", timeout)
        if stall is not None:
            _check_seconds("stall", stall)
        if at_least < 0 or (expected is not None and expected < max(1, at_least)):
            raise InvalidVote(
                f"at_least={at_least} and expected={expected} do not fit: expected 0 <= at_least <= expected"
            )
        return Gathering(check_id(type, "message type"), payload, expected, at_least, float(timeout), stall)

    def fields(self, asked: Mapping[str, int]) -> dict[str, str | bytes | int]:
        """The fields of its hash. Raises InvalidVote when more answers are needed than agents are asked."""
        if not self.at_least <= len(asked):
            raise InvalidVote(f"at_least={self.at_least} answers are needed, and {len(asked)} agents are there to ask")
        return {
            "question": self.type, "topic": self.type, "method": "collect", "options": 0, "eligible": "", "quorum": self.at_least,
            "expected": min(len(asked), len(asked) if self.expected is None else self.expected), "lasts": int(self.timeout * 1000), "change": "first",
            "stall": "" if self.stall is None else int(self.stall * 1000), "electorate": roll(asked),
            "paper": codec.encode(self.payload, what="message"),
            "spec": sha256(codec.encode([self.type, self.payload, self.at_least])).hexdigest()[:16],
        }  # fmt: skip


def _check_seconds(name: str, value: float) -> None:
    if not 0 < value < 10**9:
        raise InvalidVote(f"{name}={value!r} is not usable: expected seconds above 0")


def roll(electorate: Mapping[str, int]) -> str:
    """'agent weight agent weight …', in the order in which they are given."""
    return " ".join(f"{agent} {weight}" for agent, weight in electorate.items())


def weighed(electorate: Mapping[str, int]) -> dict[str, int]:
    """Check weights: whole numbers from 0, not all 0. Raises InvalidVote."""
    if not 1 <= len(electorate) <= MOST_VOTERS:
        raise InvalidVote(f"{len(electorate)} voters are not usable: expected 1 to {MOST_VOTERS}")
    for agent, weight in electorate.items():
        if type(weight) is not int or not 0 <= weight <= MOST_WEIGHT:
            raise InvalidVote(
                f"the weight {weight!r} of {agent} is not usable: expected a whole number from 0 (3 and 2 rather than 1.5 and 1)"
            )
    if not any(electorate.values()):
        raise InvalidVote("all weights are 0: nobody could decide anything")
    return dict(electorate)


def words_of(choice: Any, options: Sequence[str]) -> str:
    """A voter's choice as the words of a ballot; 'invalid …' when it is none."""
    if choice is None:
        return "abstain"
    if isinstance(choice, Veto):
        return (
            f"veto {options.index(choice.option) + 1}"
            if choice.option in options
            else f"invalid no option {choice.option!r:.60}"
        )
    several = choice if isinstance(choice, list | tuple) else [choice]
    unknown = [one for one in several if one not in options]
    if unknown or not several:
        return f"invalid no option {unknown[0]!r:.60}" if unknown else "invalid no option"
    return " ".join(str(options.index(one) + 1) for one in several)


def said_of(choice: Any) -> bytes:
    """The same as JSON, for people who read the audit."""
    try:
        return codec.encode({"veto": choice.option} if isinstance(choice, Veto) else choice, what="ballot", limit=4096)
    except PayloadError:
        return codec.encode(repr(choice)[:200].encode("utf-8", "replace").decode())


@dataclass(frozen=True, slots=True)
class Decision:
    """What a vote came to. Weights: ``support`` of the winner (or of whoever led), ``basis`` that it is measured by, ``cast``,
    ``electorate``, ``margin`` before the next; heads: ``voters``, ``ballots`` (abstentions too).

    ``outcome`` is decided, tie, no_quorum, no_majority or cancelled; ``tally`` option -> support, None where it was out.
    """

    id: str
    outcome: str
    winner: str | None
    support: int
    basis: int
    cast: int
    electorate: int
    margin: int
    tally: Mapping[str, int | None]
    voters: int
    ballots: int
    silent: tuple[str, ...]
    dead: tuple[str, ...]
    invalid: Mapping[str, str]
    closed_by: str
    reason: str
    round: int = 1
    at: str = field(default="", compare=False)

    @property
    def decided(self) -> bool:
        return self.outcome == "decided"

    @property
    def turnout(self) -> float:
        """Share of the voters that voted, 0 to 1; abstaining is voting."""
        return self.ballots / self.voters

    @property
    def confidence(self) -> float:
        """Support by basis, 0 to 1: how far the voters agreed, not how likely they are right."""
        return self.support / self.basis if self.basis else 0.0

    @staticmethod
    def of(said: Mapping[str, Any], options: Sequence[str]) -> Decision:
        """From the result of a closed vote."""
        rest = {name: said[name] for name in ("id", "outcome", "winner", "support", "basis", "cast", "electorate", "margin", "voters", "ballots", "closed_by", "reason", "round", "at")}  # fmt: skip
        return Decision(
            **rest, tally=dict(zip(options, said["tally"], strict=True)), silent=tuple(said["silent"]), dead=tuple(said["dead"]),
            invalid=dict(said["invalid"]),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Collected:
    """What was collected: (agent, answer) in the order in which the agents were asked, and who did not answer.

    ``reason``: all, expected, stall, deadline. ``refused``: agent -> why.
    """

    id: str
    responses: tuple[tuple[str, Any], ...]
    silent: tuple[str, ...]
    refused: Mapping[str, str]
    dead: tuple[str, ...]
    reason: str

    @staticmethod
    def of(said: Mapping[str, Any]) -> tuple[str, Collected]:
        """The outcome, and what there is, from the result of a closed collection."""
        answers = tuple((agent, answer) for agent, answer in said["answers"])
        refused = dict(said["invalid"])
        return said["outcome"], Collected(
            said["id"], answers, tuple(said["silent"]), refused, tuple(said["dead"]), said["reason"]
        )


def collected(said: Mapping[str, Any], at_least: int) -> Collected:
    """What was collected. Raises TooFewAnswers."""
    outcome, got = Collected.of(said)
    if outcome == "decided":
        return got
    missing = "; ".join(
        f"{name}: {', '.join(who)}"
        for name, who in (("silent", got.silent), ("refused", got.refused), ("dead", got.dead))
        if who
    )
    why = (
        f"it was {got.reason}"
        if outcome == "cancelled"
        else f"{len(got.responses)} of at least {at_least} answers came"
    )
    raise TooFewAnswers(
        f"collection {got.id}: {why} ({missing})", silent=got.silent, refused=dict(got.refused), dead=got.dead
    )
