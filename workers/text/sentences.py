"""Clean text to sentences, and whether a sentence is fit to be quoted.

`sentences` gives back every word of the text in order. `fitness` is a matter of taste, put down as rules: a digest is
only as good as the worst sentence in it.
"""

import re

from workers.text.terms import STOP_WORDS

TERMINAL = re.compile(r"""(?<![\s"'(\[:,;.!?…])[.!?…]{1,5}[)\]"'”’»]{0,5}$""")  # not the point in: always '.'
OPENER = re.compile(r"""["'“‘«(\[]*(?:[A-Z0-9À-ÞЀ-Я]|\w+[(_.]\w)""")
INITIAL = re.compile(r"""["'“‘(\[]*[A-HJ-Z]\.$""")
ABBREVIATION = re.compile(
    r"""["'“‘(\[]*(?:e\.g|i\.e|a\.k\.a|cf|vs|viz|dr|mrs?|ms|prof|sr|jr|st|figs?|eq|sec|ch|vol|eds?|pp?|nos?|approx|resp
    |incl|ca|al|inc|ltd|corp|dept|univ|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\.$""",
    re.IGNORECASE | re.VERBOSE,
)

#: How `extraction` marks what a docstring is about.
OWNER = re.compile(r"(?=class |\S+\(\): )(?:class )?([A-Za-z_][\w.]*)(?:\(\))?: (?=\S)")
BOILERPLATE = re.compile(
    r"""copyright|©|\(c\)\s|all\ rights\ reserved|licen[cs]e|warrant(?:y|ies)|permission\ is|redistribut|spdx
    |["'“]as\ is|public\ domain|\bauthors?\b|\bthanks\b|\bcredits?\b|\bpatch(?:es)?\ by\b|originally
    |automatically\ generated|'''|\s\#\s
    |\b(?:written|contributed|modified|created|implemented|maintained|updated|generated|based\ on\ code)\b.{0,40}?
     \b(?:by|from)\b
    |last\ modified|\$\w+.*\$|todo|fixme|\bxxx\b|unit\ tests\ (?:are|is|for)\b|\bPEP\ \d+\.?$
    |^see\b|for\ more\ (?:details|information)|https?:|www\.|\S@\S{1,80}\.\w""",
    re.IGNORECASE | re.VERBOSE,
)
DANGLING = re.compile(
    r"""\(|(?:it|its|they|their|these|those|he|she|him|his|such|that|there|here|i|we|both|another|all\ of|and|or|but|so|also|thus
    |hence|then|therefore|however|moreover|furthermore|nevertheless|otherwise|instead|similarly|likewise|finally|besides
    |again|still|yet|although|even|see|notes?|actually|unfortunately|please|alternatively|e\.g|i\.e|of\ course
    |for\ (?:example|instance)|in\ (?:this|that|these|such|addition|other|particular|fact|the)|as\ (?:a\ result|such)
    |if\ (?:so|not|it|this|there|an?)
    |this(?!\ (?:module|package|file|script|document|page|project|guide|library|program|framework|section)))\b""",
    re.IGNORECASE | re.VERBOSE,
)
BACKWARD = re.compile(
    r"\b(?:above|below|following|follows|aforementioned|latter|former|example|though|however|hack|don't|you'll|i'm|we|see)\b",
    re.IGNORECASE,
)
HANGING = re.compile(r"\.\.\.$|etc\.\)$|\b(?:(?<!it )(?<!there )is|are|the|an?|and|or|of|following)\W$", re.IGNORECASE)
RUN_ON = re.compile(r"[a-z)][.!?] [a-z]\w")
PLAIN = re.compile(r"""["'(\[“‘]*[A-Za-zÀ-ž’'/-]+["')\]”’.,;:!?]*|\d+[.,]?|–""")
PAIRS = ("()", "[]", "{}", "“”")


def sentences(text: str) -> list[str]:
    """The sentences of clean text in order, word for word; a heading or list item without a full stop is one, too."""
    found = []
    for paragraph in text.split("\n\n"):
        pieces = paragraph.split()
        start = 0
        for end, piece in enumerate(pieces, 1):
            if end == len(pieces) or ends_sentence(piece, pieces[end]):
                found.append(" ".join(pieces[start:end]))
                start = end
    return found


def ends_sentence(piece: str, following: str) -> bool:
    """Whether a sentence ends after `piece`, given the word that comes next."""
    if not TERMINAL.search(piece) or not OPENER.match(following):
        return False
    if piece.endswith(")") and not following[0].isalpha():  # "it moves (on-screen!) 15 pixels"
        return False
    initial = INITIAL.match(piece) and following.lower() not in STOP_WORDS  # "J. Smith", but not "in list L. The"
    return not (initial or ABBREVIATION.match(piece))


def fitness(sentence: str) -> float:
    """How fit a sentence is to be quoted alone, from 0.0 (never: fragments, code, licences, credits) to 1.0."""
    body = OWNER.sub("", sentence, count=1)
    size = len(body.split())
    if not 4 <= size <= 60 or not is_complete(body) or not is_prose(body) or BOILERPLATE.search(body):
        return 0.0
    score = 1.0
    if DANGLING.match(body):
        score *= 0.4
    if BACKWARD.search(body):
        score *= 0.6
    if RUN_ON.search(body):
        score *= 0.2
    if not 7 <= size <= 40:
        score *= 0.7
    if body.rstrip("\"')").endswith(("!", "?")):
        score *= 0.5
    return score


def places(all_sentences: list[str]) -> list[float]:
    """What its place in the text makes of each sentence, from 0.0 to 1.0: a text says first what it is about.

    From the first docstring of a class or function on, sentences are about parts of the whole and count half; those that
    do not name the part, a quarter.
    """
    found = []
    part = 1.0
    for index, sentence in enumerate(all_sentences):
        if OWNER.match(sentence):
            part = 0.5
        elif part < 1.0:
            part = 0.25
        found.append(part * (0.6 + 0.4 / (1 + index / 10)))
    return found


def is_complete(text: str) -> bool:
    """Begins like a sentence, ends like one, and closes what it opens."""
    balanced = all(text.count(pair[0]) == text.count(pair[1]) for pair in PAIRS) and text.count('"') % 2 == 0
    return balanced and bool(OPENER.match(text) and TERMINAL.search(text)) and not HANGING.search(text)


def is_prose(text: str) -> bool:
    """Mostly plain words, and not shouted."""
    pieces = text.split()
    return not text.isupper() and sum(1 for piece in pieces if PLAIN.fullmatch(piece)) >= 0.6 * len(pieces)
