"""The words of a text, and the terms that they count for.

A term is a word that carries meaning: lower case, singular, no stop word. Order is that of the text. Other languages
than English work too, without stop words and folding of their own.
"""

import re
from collections.abc import Set
from functools import lru_cache

FUNCTION_WORDS = """a about above after again against all almost along already also although always am among an and
another any anyone anything are as at away be became because become been before being below between both but by came
can cannot come could did do does doing done down due during each eg either else enough et etc even ever every few
first following for from further gave get gets give gives given go goes going got had has have having he hence her here
herself him himself his how however i ie if in indeed instead into is it its itself just keep know known last least
less let like likely made mainly make makes making many may maybe me might mine more most mostly much must my myself
need needed needs neither never next no non none nor not nothing now of off often ok on once one ones only onto or
other others otherwise ought our ours out over own per perhaps please possible quite rather really regarding same say
says second see seem seems seen several shall she should since so some something sometimes soon still such take taken
than that the their theirs them themselves then there therefore these they thing things this those though through thus
to together too toward two under unless until up upon us use used useful user uses using usual usually various very via
vs want was way we well went were what whatever when where whether which while who whole whom whose why will with
within without would yet you your yours yourself"""
DOCUMENTATION_WORDS = """true false none self cls arg args kwarg kwargs param return returns returned returning call
calls called calling raise raises raised specify specifies specified note default defaults optional optionally provide
provides provided allow allows contain contains containing represent represents based set sets new old different
similar similarly simple simply example examples work works current currently"""
STOP_WORDS = frozenset(f"{FUNCTION_WORDS} {DOCUMENTATION_WORDS}".split())

IRREGULAR = """aliases=alias apis=api axes=axis buses=bus caches=cache cookies=cookie indices=index matrices=matrix
parentheses=parenthesis statuses=status"""
NO_PLURALS = """alias atlas bias canvas chaos dns https lens macos means news pandas series species stats thanks tls whereas
windows"""
PLURALS = dict(pair.split("=") for pair in IRREGULAR.split())
SINGULARS = frozenset(NO_PLURALS.split())
NAME = re.compile(r"[_.]|\wtools$|\wutils$")
MIXED_CASE = re.compile(r"[a-z][A-Z]|[A-Z]{2,}[a-rt-z]|[A-Z]{2,}s\w|\d[A-Z][a-z]")
WORD = re.compile(r"[^\W\d_](?:\w|[-'’](?=\w)|\.(?=[A-Za-z_]\w))*")
ADDRESS = re.compile(r"(?<!\w)\w{1,12}://\S+")


def words(text: str) -> list[str]:
    """The words of a text in order; a name such as `os.path` is one word, an address is none."""
    return WORD.findall(ADDRESS.sub(" ", text) if "://" in text else text)


def terms(text: str) -> list[str]:
    """The terms of a text in order."""
    return [term for term in map(fold, words(text)) if term]


@lru_cache(maxsize=20_000)
def fold(word: str) -> str:
    """The term a word counts for, or "" for a stop word. Only regular plurals are folded, so that a term stays a word.

    Names in mixed case stay as they are: `StringIO` reads better than `stringio`.
    """
    word = word.replace("’", "'").strip("_").removesuffix("'s")
    if MIXED_CASE.search(word):
        return word
    term = word.lower()
    if term in STOP_WORDS or "'" in term or len(term) < 2 or term.count("-") > 2:
        return ""
    if term in PLURALS:
        return PLURALS[term]
    if len(term) < 4 or not term.endswith("s") or term in SINGULARS or NAME.search(term):
        return term
    if term.endswith("ies"):
        return term[:-3] + "y" if len(term) > 4 else term[:-1]
    if term.endswith(("sses", "shes", "ches", "xes", "zzes")):
        return term[:-2]
    return term if term.endswith(("ss", "us", "is")) else term[:-1]


def overlap(one: Set[str], other: Set[str]) -> float:
    """What both sets have, as a share of the smaller one: 0.0 to 1.0."""
    return len(one & other) / min(len(one), len(other)) if one and other else 0.0
