"""The editor: from what the others found to `digest.md`, a text to read.

`assemble-digest` is a pure function of its payload. The digest of some thousand documents can be larger than a payload
or a result may be; then ask for `head` and for `index` with documents that have no summaries, for `entries` some
hundred documents at a time, and join the parts in the order head, entries, index. `after` names the last document of
the entries before, so that the heading of a folder is written once. `list-documents` gives the right order.
"""

import re
from collections import defaultdict
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any

from streammesh import Agent, Reject
from workers.text.sentences import OWNER

SECTIONS = ("head", "entries", "index")
PLACES = 12  # a keyword of more documents than this names the first ones
PUNCTUATION = re.compile(r"""(["'(“‘]*)(.*?)([)"'”’.,;:!?]*)""")
QUOTES = {'"', "'"}
OPERATORS = {"<", "<=", ">", ">=", "==", "!=", "=", "+", "-", "*", "/", "->", "%", "|", "&"}
CODE = re.compile(
    r"""\w\((?!e?s\)|s$) | \w= | \w\[ | [*\\`]\w | \w\* | _ | <[\w/!] | &[\w#]  # calls, and what Markdown would act on
    | (?<!\w)[a-z]\w*\.[A-Za-z]\w | ^\W*\.\w                                      # dotted names, .suffixes""",
    re.VERBOSE,
)

agent = Agent("editor", slots=1)


@agent.capability("assemble-digest")
def assemble_digest(
    documents: list[dict[str, Any]], title: str = "Digest", sections: list[str] | None = None, after: str = ""
) -> dict[str, Any]:
    """Writes the digest. A document is {path, title, words, summary: [sentence], keywords: [term, or {term: ...}]}, with
    `method` and `how` where the summary was chosen among several.

    Returns {markdown, documents, keywords}, the last two counted. `sections` names some of head, entries and index.
    """
    wanted = set(sections or SECTIONS)
    if unknown := sorted(wanted - set(SECTIONS)):
        raise Reject(f"unknown section {unknown[0]!r}: known are {', '.join(SECTIONS)}")
    if any("path" not in document for document in documents):
        raise Reject("a document without a path")
    documents = sorted(documents, key=lambda document: (folder_of(document), document["path"]))
    written = {
        "head": lambda: head(documents, title),
        "entries": lambda: entries(documents, after),
        "index": lambda: index(documents),
    }
    parts = [written[section]() for section in SECTIONS if section in wanted]
    return {
        "markdown": "\n\n".join(part for part in parts if part) + "\n",
        "documents": len(documents),
        "keywords": len(index_terms(documents)),
    }


def head(documents: list[dict[str, Any]], title: str) -> str:
    spoken = [document["words"] for document in documents if document.get("words")]
    silent = len(documents) - len(spoken)
    text = f"{counted(len(spoken), 'document')} with {counted(sum(spoken), 'word')}, by folder"
    text += "; at the end an index of keywords."
    if silent:
        text += f" {silent:,} more without any prose {'is' if silent == 1 else 'are'} named before the index."
    return f"# {prose(title)}\n\n{text}"


def entries(documents: list[dict[str, Any]], after: str) -> str:
    parts = []
    before = folder_of({"path": after}) if after else ""
    spoken = [document for document in documents if document.get("words")]
    for folder, members in groupby(spoken, key=folder_of):
        if folder != before:
            parts.append("## Top folder" if folder == "." else f"## {folder}/")
        parts += [entry(document) for document in members]
    return "\n\n".join(parts)


def entry(document: dict[str, Any]) -> str:
    """One document: title, path and size, summary, keywords."""
    path, title = document["path"], document.get("title") or document["path"]
    name, colon, about = title.partition(": ")
    lines = [f"### `{name}`{colon}{prose(about)}" if path.endswith(".py") else f"### {prose(title)}"]
    lines.append(f"`{path}`, {counted(document['words'], 'word')}")
    if summary := document.get("summary"):
        lines.append(" ".join(map(quoted, summary)))
    if document.get("how"):
        lines.append(f"*Summary:* {document['method']}, {document['how']}")
    if keywords := terms_of(document):
        lines.append(f"*Keywords:* {', '.join(map(prose, keywords))}")
    return "\n\n".join(lines)


def index(documents: list[dict[str, Any]]) -> str:
    """Every keyword with the documents it was found in, in alphabetical order under its first letter."""
    silent = [document["path"] for document in documents if not document.get("words")]
    lines = ["## Documents without prose", places(silent, len(silent)) + "."] if silent else []
    lines.append("## Index of keywords")
    terms = index_terms(documents)
    for letter, members in groupby(sorted(terms, key=str.casefold), key=lambda term: term[0].upper()):
        listed = "\n".join(f"- {prose(term)}: {places(terms[term], PLACES)}" for term in members)
        lines.append(f"### {letter}\n\n{listed}")
    return "\n\n".join(lines)


def index_terms(documents: list[dict[str, Any]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for document in documents:
        for term in terms_of(document):
            found[term].append(document["path"])
    return dict(found)


def terms_of(document: dict[str, Any]) -> list[str]:
    keywords = document.get("keywords") or []
    return [keyword["term"] if isinstance(keyword, dict) else str(keyword) for keyword in keywords]


def folder_of(document: dict[str, Any]) -> str:
    return str(PurePosixPath(document["path"]).parent)


def places(paths: list[str], limit: int) -> str:
    more = f" and {len(paths) - limit} more" if len(paths) > limit else ""
    return ", ".join(f"`{path}`" for path in paths[:limit]) + more


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def quoted(sentence: str) -> str:
    """A sentence with its full stop; the class or function it is said to be about is set as code."""
    sentence += "." if sentence[-1:].isalnum() else ""
    owner = OWNER.match(sentence)
    return f"`{owner[0].strip(': ')}`: {prose(sentence[owner.end() :])}" if owner else prose(sentence)


def prose(text: str) -> str:
    """Text for Markdown: what looks like code is set as code, so that nothing in it acts as markup."""
    found: list[str] = []
    rest = iter(text.split())
    for word in rest:
        while opens_call(word) and (following := next(rest, "")):
            word += f" {following}"
        before, core, after = code_in(word)
        if not CODE.search(core):
            found.append(word)
        elif len(found) > 1 and found[-1] in OPERATORS and found[-2].endswith("`") and not before:
            found[-2:] = [f"{found[-2][:-1]} {found[-1]} {core}`{after}"]
        else:
            found.append(f"{before}`{core}`{after}")
    return " ".join(found)


def opens_call(word: str) -> bool:
    """True for the beginning of a call whose brackets close in a later word."""
    return re.search(r"[\w)]\(", word) is not None and word.count("(") > word.count(")") and word.count(" ") < 8


def code_in(word: str) -> tuple[str, str, str]:
    """A word as (punctuation, what may be code, punctuation); brackets and quotes of the code stay in it."""
    match = PUNCTUATION.fullmatch(word.replace("`", ""))
    before, core, after = match.groups() if match else ("", word, "")
    while before.endswith("(") and ")" in core.partition("(")[0]:
        before, core = before[:-1], f"({core}"
    while after and (
        core.count("(") > core.count(")")
        or (after[0] in QUOTES and core.count(after[0]) % 2)
        or (after[0] == ";" and "&" in core)
    ):
        core, after = core + after[0], after[1:]
    if before and before[-1] == after[:1]:  # quotes around code say what the backticks say
        before, after = before[:-1], after[1:]
    return before, core, after


if __name__ == "__main__":
    agent.run()
