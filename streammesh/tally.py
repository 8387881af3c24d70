"""What ballots come to: the arithmetic of every method, pure. The scripts do the same in Lua; each is the other's proof.

A ballot is words: numbers of options (from 1) in the voter's order, ``abstain``, ``veto <option>``, ``invalid <why>``,
``dead``. Weights are whole numbers. Support, basis and margin are sums of weights; the quorum counts heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Rules", "Standing", "Verdict", "judge", "stand"]


@dataclass(frozen=True, slots=True)
class Rules:
    """How a vote is decided. ``need``/``of`` is the threshold, which ``strict`` asks to pass; ``lots`` an order drawn by hash.

    ``eligible`` are the options of the present round; ``status_quo`` is an option's number or 0, ``chair`` a voter or ''.
    """

    method: str
    options: int
    quorum: int
    need: int = 0
    of: int = 1
    strict: bool = False
    basis: str = "cast"
    tie: str = "no_decision"
    status_quo: int = 0
    chair: str = ""
    change: str = "first"
    veto: bool = False
    eligible: tuple[int, ...] = ()
    lots: tuple[int, ...] = ()
    round: int = 1

    @staticmethod
    def of_fields(fields: Mapping[str, str]) -> Rules:
        """From the hash of a vote."""
        return Rules(
            method=fields["method"], options=int(fields["options"]), quorum=int(fields["quorum"]), need=int(fields["need"]),
            of=int(fields["of"]), strict=fields["strict"] == "1", basis=fields["basis"], tie=fields["tie"],
            status_quo=int(fields["status_quo"] or 0), chair=fields["chair"], change=fields["change"], veto=fields["veto"] == "1",
            eligible=_numbers(fields["eligible"]), lots=_numbers(fields["lots"]), round=int(fields["round"]),
        )  # fmt: skip

    def reached(self, support: int, basis: int) -> bool:
        """Whether the threshold is reached."""
        return support * self.of > self.need * basis if self.strict else support * self.of >= self.need * basis

    def on_the_line(self, support: int, basis: int) -> bool:
        """Whether one vote more would pass a strict threshold: only there can a majority be tied."""
        return self.strict and support * self.of == self.need * basis


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a vote stands. ``support`` has no number of an option that is out."""

    support: Mapping[int, int]
    leaders: tuple[int, ...]
    best: int
    second: int
    basis: int
    rounds: int
    cast: int
    cast_weight: int
    weight: int
    vetoed: frozenset[int]
    outstanding: tuple[str, ...]
    outstanding_weight: int
    dead: tuple[str, ...]
    invalid: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What it came to; ``outcome`` 'runoff' means that a second round follows. ``winner`` is an option's number or 0."""

    outcome: str
    winner: int
    reason: str


def stand(rules: Rules, electorate: Sequence[tuple[str, int]], ballots: Mapping[str, str]) -> Standing:
    """Count ``ballots`` (agent -> words) of ``electorate`` (agent, weight)."""
    said = [(agent, weight, ballots.get(agent)) for agent, weight in electorate]
    valid = [
        (weight, words) for _, weight, words in said if words and words != "dead" and not words.startswith("invalid ")
    ]
    chosen = [(weight, words) for weight, words in valid if words != "abstain"]
    vetoed = frozenset(int(words[5:]) for _, words in chosen if words.startswith("veto "))
    lists = [(weight, _numbers(words)) for weight, words in chosen if not words.startswith("veto ")]
    left = [option for option in rules.eligible if option not in vetoed]
    rounds = 1
    while True:
        support = _support(left, lists, every=rules.method == "approval")
        order = sorted(support.values(), reverse=True)
        best = order[0] if order else 0
        if rules.method != "ranked" or len(left) <= 2 or best * 2 > sum(order):
            break
        least = min(order)
        left.remove(max((option for option in left if support[option] == least), key=rules.lots.index))
        rounds += 1
    cast_weight = sum(weight for weight, _ in chosen)
    total = sum(weight for _, weight in electorate)
    return Standing(
        support=support,
        leaders=tuple(option for option in sorted(support) if support[option] == best > 0),
        best=best,
        second=order[1] if len(order) > 1 else 0,
        basis=total if rules.basis == "electorate" else sum(order) if rules.method == "ranked" else cast_weight,
        rounds=rounds,
        cast=len(valid),
        cast_weight=cast_weight,
        weight=total,
        vetoed=vetoed,
        outstanding=tuple(agent for agent, _, words in said if not words),
        outstanding_weight=sum(weight for _, weight, words in said if not words),
        dead=tuple(agent for agent, _, words in said if words == "dead"),
        invalid={agent: words[8:] for agent, _, words in said if words and words.startswith("invalid ")},
    )


def judge(
    rules: Rules, electorate: Sequence[tuple[str, int]], ballots: Mapping[str, str], *, final: bool = False
) -> Verdict | None:
    """What a vote has come to, None while it is open; ``final``: nobody is waited for any longer."""
    now = stand(rules, electorate, ballots)
    waiting = len(now.outstanding)
    if now.cast + waiting < rules.quorum:
        return Verdict("no_quorum", 0, "unreachable")
    if final or not waiting:
        return _last_word(rules, now, ballots, "deadline" if waiting else "all")
    if now.cast < rules.quorum or rules.change == "last":
        return None
    open_weight = now.outstanding_weight
    most = now.weight if rules.basis == "electorate" else now.cast_weight + open_weight
    if len(now.leaders) == 1 and not rules.veto:
        if rules.method == "ranked":
            safe = now.rounds == 1 and now.best * 2 > now.cast_weight + open_weight
        else:
            safe = now.best - now.second > open_weight
        if safe and rules.reached(now.best, most):
            return Verdict("decided", now.leaders[0], "early")
    highest = now.best + open_weight
    if rules.method != "ranked" and not rules.reached(highest, most) and not rules.on_the_line(highest, most):
        return Verdict("no_majority", 0, "impossible")
    return None


def _last_word(rules: Rules, now: Standing, ballots: Mapping[str, str], how: str) -> Verdict:
    if now.cast < rules.quorum:
        return Verdict("no_quorum", 0, "deadline")
    if not now.leaders:
        return Verdict("no_majority", 0, "vetoed" if now.vetoed else "no support")
    reached = rules.reached(now.best, now.basis)
    if len(now.leaders) == 1:
        return Verdict("decided", now.leaders[0], how) if reached else Verdict("no_majority", 0, "threshold")
    if not reached and not rules.on_the_line(now.best, now.basis):
        return Verdict("no_majority", 0, "threshold")
    if rules.tie == "runoff" and rules.round == 1:
        return Verdict("runoff", 0, how)
    winner = _break(rules, now, ballots)
    return Verdict("decided", winner, f"tie {rules.tie}") if winner else Verdict("tie", 0, how)


def _break(rules: Rules, now: Standing, ballots: Mapping[str, str]) -> int:
    match rules.tie:
        case "priority":
            return now.leaders[0]
        case "status_quo":
            return 0 if rules.status_quo in now.vetoed else rules.status_quo
        case "hash":
            return min(now.leaders, key=rules.lots.index)
        case "chair":
            words = ballots.get(rules.chair, "")
            named = [option for option in _numbers(words) if option in now.leaders] if words[:1].isdigit() else []
            return named[0] if named and (len(named) == 1 or rules.method != "approval") else 0
    return 0


def _support(left: Sequence[int], lists: Sequence[tuple[int, tuple[int, ...]]], *, every: bool) -> dict[int, int]:
    support = dict.fromkeys(left, 0)
    for weight, places in lists:
        for option in [option for option in places if option in support][: None if every else 1]:
            support[option] += weight
    return support


def _numbers(words: str) -> tuple[int, ...]:
    return tuple(int(word) for word in words.split() if word.isdigit())
