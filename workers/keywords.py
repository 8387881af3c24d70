"""The keyword agent: what a document talks about and the others do not, by TF-IDF.

Two steps, so that each is a small task. `count-terms` reads one text. Whoever holds all counts adds them up to
document frequencies (`document_frequencies` does it), and `rank-keywords` gets the counts of one document with the
frequencies of just those terms. A term is a word or a pair of adjacent words, folded by `workers.text.terms`.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from streammesh import Agent, Reject
from workers.text.sentences import BOILERPLATE, OWNER, sentences
from workers.text.terms import fold, words

MAX_TERMS = 400

# Participles, adverbs and dotted names: weak as keywords, and wrong at the end of a pair ("decorator indicating").
WEAK = re.compile(r"(?<!str)(?<!th)ing$|[^e]ed$|ly$|\w[._]\w")
WEIGHT_OF_WEAK, WEIGHT_OF_PAIR = 0.6, 0.85
FAR_BEHIND = 0.3  # a keyword with less than this share of the best score says little

agent = Agent("keywords", slots=4)


@agent.capability("count-terms")
def count_terms(text: str, limit: int = MAX_TERMS) -> dict[str, Any]:
    """Counts the terms of a text. Returns {counts: {term: n}, total, words}, with the `limit` most frequent terms."""
    counts = term_counts(text)
    kept = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:limit])
    return {"counts": kept, "total": counts.total(), "words": len(words(text))}


@agent.capability("rank-keywords")
def rank_keywords(
    counts: dict[str, int], frequencies: dict[str, int], documents: int, limit: int = 6
) -> dict[str, Any]:
    """Ranks the terms of one document. `frequencies` says in how many of the `documents` each occurs (missing: in one).

    Returns {keywords: [{term, score}]}, best first. Of terms with the same count, one that is in all documents is last.
    """
    if documents < 1:
        raise Reject(f"a corpus has at least one document, not {documents}")
    scores = tf_idf(counts, frequencies, documents)
    return {"keywords": [{"term": term, "score": round(scores[term], 4)} for term in best_terms(scores, limit)]}


def term_counts(text: str) -> Counter[str]:
    """How often each word and each pair of adjacent words occurs; a pair counts when it occurs at least twice."""
    singles: Counter[str] = Counter()
    pairs: Counter[str] = Counter()
    found = sentences(text)
    # Who wrote a document under which licence is not what it is about, unless there is nothing else in it.
    for sentence in [sentence for sentence in found if not BOILERPLATE.search(sentence)] or found:
        if owner := OWNER.match(sentence):
            # A docstring begins with what it is about; of `class Mailbox` and `Mailbox.add()` that is `Mailbox`.
            sentence = f"{owner[1].partition('.')[0]} . {sentence[owner.end() :]}"
        previous = ""
        for word in words(sentence):
            term = fold(word)
            if term:
                singles[term] += 1
                if previous not in ("", term) and not WEAK.search(term):
                    pairs[f"{previous} {term}"] += 1
            previous = term
    return singles + Counter({pair: count for pair, count in pairs.items() if count > 1})


def document_frequencies(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    """In how many documents each term occurs, from the `counts` of all of them."""
    frequencies: Counter[str] = Counter()
    for document in counts:
        frequencies.update(document.keys())
    return frequencies


def tf_idf(counts: Mapping[str, int], frequencies: Mapping[str, int], documents: int) -> dict[str, float]:
    """The score of each term: its count to the power of 0.7 (the tenth mention says less) times its rarity."""
    scores = {}
    for term, count in counts.items():
        rarity = math.log((documents + 1) / (min(max(frequencies.get(term, 1), 1), documents) + 0.5))
        weight = WEIGHT_OF_WEAK if WEAK.search(term) else WEIGHT_OF_PAIR if " " in term else 1.0
        scores[term] = weight * max(count, 0) ** 0.7 * rarity
    return scores


def best_terms(scores: Mapping[str, float], limit: int) -> list[str]:
    """The best terms, ties in alphabetical order. Each word appears once, alone or in a pair; none is far behind."""
    chosen: list[str] = []
    used: set[str] = set()
    for term in sorted(scores, key=lambda term: (-scores[term], term)):
        if len(chosen) == limit or (chosen and scores[term] < FAR_BEHIND * scores[chosen[0]]):
            break
        if used.isdisjoint(term.split()):
            chosen.append(term)
            used.update(term.split())
    return chosen


if __name__ == "__main__":
    agent.run()
