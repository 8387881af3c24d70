"""The summarizer: the most telling sentences of a text, word for word and in the order of the text.

Three methods. `lead` takes the first sentences that can stand alone. `frequency` is SumBasic: sentences made of the
text's frequent terms, each choice making its own terms count less. `graph` is LexRank: sentences that resemble many
sentences that do, too, found by power iteration on the similarity graph, with a preference for the beginning of the
text. Fragments, code, licences and credits are never chosen (`workers.text.sentences.fitness`).

Each agent has a method of its own. By that it proposes (message `propose-summary`), and bids for long texts: slower
methods ask for more time, better ones promise more.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

from streammesh import Agent, Bid, Call, Message, Reject, TaskContext
from workers.text.sentences import fitness, places, sentences
from workers.text.terms import overlap, terms

MAX_SENTENCES = 400  # a longer text is judged by its first sentences; keeps the graph below 80,000 pairs
DAMPING = 0.75
ROUNDS = 30
TOO_SIMILAR = 0.7

agent = Agent("summarizer", slots=4)


class Candidate(NamedTuple):
    """A sentence that may be chosen: its terms in order, and how fit it is to be quoted."""

    sentence: str
    terms: list[str]
    fitness: float


@agent.capability("summarize")
def summarize(
    text: str, sentences: int = 3, method: str = "graph", title: str = "", ctx: TaskContext | None = None
) -> dict[str, Any]:
    """Chooses up to `sentences` sentences by `method` (graph, frequency or lead); none that only repeats the `title`.

    Method `own` is that of the agent that does it. Returns {sentences: [text], method, considered: n}. A text without a
    quotable sentence gives an empty list.
    """
    if method == "own" and ctx is not None:
        method = own(ctx.agent)
    if method not in METHODS:
        raise Reject(f"unknown method {method!r}: known are {', '.join(METHODS)}")
    if not 1 <= sentences <= 50:
        raise Reject(f"sentences must be 1 to 50, not {sentences}")
    candidates = quotable(text, title)
    chosen = sorted(METHODS[method](candidates, sentences))
    quoted = [candidates[index].sentence for index in chosen]
    return {"sentences": quoted, "method": method, "considered": len(candidates)}


def own(agent: str) -> str:
    """The method of the agent with this id: epochs count up, so that neighbours differ."""
    return list(METHODS)[int(agent.rpartition(".")[2]) % len(METHODS)]


@agent.on("propose-summary")
def propose(message: Message) -> dict[str, Any]:
    """The proposal of this agent for {text, title}, as `summarize` returns it."""
    return summarize(message.payload["text"], method=own(message.to), title=message.payload["title"])


@agent.bids("summarize")
async def bid(call: Call) -> Bid:
    """By load and fit: the seconds that it takes by this agent's method, more of them the busier it is, and how good that is."""
    method = own(call.bidder)
    busy = 1 - call.free / call.slots
    return Bid(eta=len(call.payload["text"]) / SPEED[method] * (1 + 4 * busy), quality=QUALITY[method])


def quotable(text: str, title: str = "") -> list[Candidate]:
    """The first 400 different sentences of a text that are fit to be quoted and say more than the title does.

    A text without any complete sentence offers its longer list items and headings.
    """
    all_sentences = sentences(text)
    placed = list(zip(all_sentences, places(all_sentences), strict=True))
    return candidates_among(placed, title, "") or candidates_among(placed, title, full_stop=".")


def candidates_among(placed: list[tuple[str, float]], title: str, full_stop: str) -> list[Candidate]:
    known = set(terms(title))
    found: dict[str, Candidate] = {}
    for sentence, place in placed:
        fit = 0.0 if sentence in found else place * fitness(sentence + full_stop)
        if fit > 0 and not known.issuperset(bag := terms(sentence)):
            found[sentence] = Candidate(sentence, bag, fit)
            if len(found) == MAX_SENTENCES:
                break
    return list(found.values())


def lead(candidates: list[Candidate], count: int) -> list[int]:
    return list(range(min(count, len(candidates))))


def frequency(candidates: list[Candidate], count: int) -> list[int]:
    """SumBasic (Nenkova and Vanderwende, 2005): by the mean probability of the terms, squared once they are said."""
    counts = Counter(term for candidate in candidates for term in candidate.terms)
    weight = {term: n / counts.total() for term, n in counts.items()}

    def value(index: int) -> tuple[float, int]:
        candidate = candidates[index]
        return candidate.fitness * sum(weight[term] for term in candidate.terms) / len(candidate.terms), -index

    chosen: list[int] = []
    while len(chosen) < min(count, len(candidates)):
        best = max((index for index in range(len(candidates)) if index not in chosen), key=value)
        chosen.append(best)
        weight.update({term: weight[term] ** 2 for term in candidates[best].terms})
    return chosen


def graph(candidates: list[Candidate], count: int) -> list[int]:
    """LexRank (Erkan and Radev, 2004), then the best sentences that do not repeat each other."""
    prior = [candidate.fitness / math.sqrt(1 + index) for index, candidate in enumerate(candidates)]
    ranks = centrality(similarities([candidate.terms for candidate in candidates]), prior)
    scores = [rank * candidate.fitness for rank, candidate in zip(ranks, candidates, strict=True)]
    bags = [set(candidate.terms) for candidate in candidates]
    chosen: list[int] = []
    for index in sorted(range(len(candidates)), key=lambda index: (-scores[index], index)):
        if len(chosen) < count and all(overlap(bags[index], bags[other]) < TOO_SIMILAR for other in chosen):
            chosen.append(index)
    return chosen


METHODS: dict[str, Callable[[list[Candidate], int], list[int]]] = {
    "graph": graph,
    "frequency": frequency,
    "lead": lead,
}
SPEED = {"graph": 1e6, "frequency": 1.1e6, "lead": 2.4e6}  # characters in a second
QUALITY = {"graph": 1.0, "frequency": 0.9, "lead": 0.4}  # for a long text, whose beginning does not say it all


def similarities(bags: list[list[str]]) -> list[dict[int, float]]:
    """For each sentence its neighbours with the cosine of their TF-IDF vectors; no common term, no neighbour."""
    spread = Counter(term for bag in bags for term in set(bag))
    holders: dict[str, list[tuple[int, float]]] = defaultdict(list)  # who has this term, and how much of it
    for index, bag in enumerate(bags):
        vector = {term: n * math.log(1 + len(bags) / spread[term]) for term, n in Counter(bag).items()}
        length = math.sqrt(sum(value * value for value in vector.values()))
        for term, value in vector.items():
            holders[term].append((index, value / length))
    edges: list[dict[int, float]] = [{} for _ in bags]
    for entries in holders.values():
        for position, (one, left) in enumerate(entries):
            for other, right in entries[position + 1 :]:
                edges[one][other] = edges[other][one] = edges[one].get(other, 0.0) + left * right
    return edges


def centrality(edges: list[dict[int, float]], prior: list[float]) -> list[float]:
    """How often a walk along the edges is at each sentence, if it now and then restarts by `prior`: power iteration."""
    restart = [value / sum(prior) for value in prior]
    degree = [sum(row.values()) for row in edges]
    ranks = restart
    for _ in range(ROUNDS):
        stuck = sum(rank for rank, row in zip(ranks, edges, strict=True) if not row)  # nowhere to walk to: restart
        flow = [(1 - DAMPING + DAMPING * stuck) * value for value in restart]
        for index, row in enumerate(edges):
            for other, weight in row.items():
                flow[other] += DAMPING * ranks[index] * weight / degree[index]
        moved = sum(abs(new - old) for new, old in zip(flow, ranks, strict=True))
        ranks = flow
        if moved < 1e-6:
            break
    return ranks


if __name__ == "__main__":
    agent.run()
