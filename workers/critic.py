"""The critic: how good a summary is for its text, in numbers from 0.0 to 1.0.

`coverage` is the share of the text's weighted terms that the summary mentions, `redundancy` how much its sentences
repeat each other (0.0 is best), `length` whether a reader gets neither a stub nor an essay, `clarity` how well its
sentences stand alone. `overall` weighs the four. By these numbers critics vote on the best of several summaries (topic
`best-summary`), each with a taste of its own.
"""

from collections import Counter
from itertools import combinations

from streammesh import Agent, Ballot
from workers.text.sentences import fitness, places, sentences
from workers.text.terms import terms, words

TOP_TERMS = 25
SHORTEST, LONGEST = 20, 90  # words of a comfortable summary
WEIGHTS = {"coverage": 0.3, "novelty": 0.15, "length": 0.15, "clarity": 0.4}
#: What a critic values when it votes. Epochs count up, so that neighbours differ.
TASTES = (
    WEIGHTS,
    {"coverage": 0.7, "novelty": 0.1, "length": 0.1, "clarity": 0.1},
    {"coverage": 0.1, "novelty": 0.1, "length": 0.2, "clarity": 0.6},
)

agent = Agent("critic", slots=4)


@agent.capability("criticize")
def criticize(summary: list[str], text: str) -> dict[str, float]:
    """Scores the sentences of a summary against its text. Returns {coverage, redundancy, length, clarity, overall}.

    An empty summary scores 0.0 overall, except for a text without any terms, of which nothing could be said.
    """
    scores = {
        "coverage": coverage(summary, text),
        "redundancy": redundancy(summary),
        "length": length(summary, text),
        "clarity": clarity(summary, text),
    }
    overall = merit(scores, WEIGHTS)
    if not summary:
        overall = 0.0 if terms(text) else 1.0
    return {name: round(value, 3) for name, value in {**scores, "overall": overall}.items()}


@agent.votes("best-summary")
async def choose(ballot: Ballot) -> str:
    """The option that this critic likes best; the payload is {scores: {option: what `criticize` said of it}}."""
    taste = TASTES[int(ballot.voter.rpartition(".")[2]) % len(TASTES)]
    scores = ballot.payload["scores"]
    return max(ballot.options, key=lambda option: merit(scores[option], taste))


def merit(scores: dict[str, float], taste: dict[str, float]) -> float:
    """What scores are worth to a taste."""
    merits = {**scores, "novelty": 1.0 - scores["redundancy"]}
    return sum(weight * merits[name] for name, weight in taste.items())


def coverage(summary: list[str], text: str) -> float:
    """The share of the weight of the text's 25 most frequent terms that the summary mentions."""
    weights = sorted(Counter(terms(text)).items(), key=lambda item: (-item[1], item[0]))[:TOP_TERMS]
    said = set(terms("\n\n".join(summary)))
    total = sum(weight for _, weight in weights)
    return sum(weight for term, weight in weights if term in said) / total if total else 1.0


def redundancy(summary: list[str]) -> float:
    """The terms that the two most similar sentences share, as a share of all they have (Dice)."""
    bags = [set(terms(sentence)) for sentence in summary]
    pairs = [(one, other) for one, other in combinations(bags, 2) if one or other]
    return max((2 * len(one & other) / (len(one) + len(other)) for one, other in pairs), default=0.0)


def length(summary: list[str], text: str) -> float:
    """1.0 for 20 to 90 words, or for all of a shorter text; falls towards 0.0 outside."""
    said = sum(len(words(sentence)) for sentence in summary)
    enough = min(SHORTEST, len(words(text)))
    if said < enough:
        return said / enough
    return min(1.0, LONGEST / said) if said else 1.0


def clarity(summary: list[str], text: str) -> float:
    """The mean fitness of the sentences, less what their place in the text costs; one that is not in it counts nothing."""
    found = sentences(text)
    place: dict[str, float] = {}
    for sentence, value in zip(found, places(found), strict=True):
        place.setdefault(sentence, value)
    values = [place.get(sentence, 0.0) * fitness(sentence) for sentence in summary]
    return sum(values) / len(values) if values else 0.0


if __name__ == "__main__":
    agent.run()
