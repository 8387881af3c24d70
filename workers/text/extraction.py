"""Documents to a title and clean text, one function for each kind: `prose`, `web_page`, `python_module`.

The title is never empty when the name given is not. Nothing is executed, and nothing is fetched.
"""

import ast
import inspect
import re
import threading
import warnings
from html.parser import HTMLParser
from pathlib import PurePath

from workers.text import cleaning

TITLE_LENGTH = 120  # a longer first line is a sentence rather than a title
#: Elements inside a paragraph; all others begin a new one.
INLINE = {"a", "abbr", "b", "bdi", "bdo", "big", "cite", "code", "del", "dfn", "em", "font", "i", "img", "ins", "kbd",
          "label", "mark", "q", "s", "samp", "small", "span", "strong", "sub", "sup", "tt", "u", "var"}  # fmt: skip
#: Elements whose content is no prose.
SILENT = {"aside", "button", "footer", "form", "iframe", "math", "nav", "noscript", "pre", "script", "select", "style",
          "svg", "table", "template", "textarea"}  # fmt: skip

# Odd escapes in other people's source are not for our log. A filter for this one name is safe in threads; a block with
# catch_warnings is not.
SOURCE = "<document>"
warnings.filterwarnings("ignore", module=re.escape(SOURCE))

# CPython 3.11 counts the depth of a tree in one place for all threads, and fails when two parse at once.
PARSING = threading.Lock()


def prose(text: str, name: str, markup: str = "plain") -> tuple[str, str]:
    """Title and text of a document in plain text, reStructuredText or Markdown. A short first line is the title."""
    clean = cleaning.markdown(text) if markup == "markdown" else cleaning.plain(text)
    first = clean.partition("\n\n")[0]
    return (first.rstrip(".") if could_be_title(first) else name), clean


def could_be_title(line: str) -> bool:
    return 0 < len(line) <= TITLE_LENGTH and line[-1] not in ":,;" and ". " not in line


class Page(HTMLParser):
    """Collects the titles and the visible prose of a web page: for each element a list of pieces."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.titles: dict[str, list[list[str]]] = {"title": [], "h1": []}
        self.paragraphs: list[list[str]] = [[]]
        self.silent: list[str] = []
        self.heading = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in SILENT:
            self.silent.append(tag)
        elif tag not in INLINE:
            self.paragraphs.append([])
        if tag in self.titles:
            self.heading = tag
            self.titles[tag].append([])

    def handle_endtag(self, tag: str) -> None:
        if tag in self.silent:
            # An element left open inside must not silence the rest of the page.
            del self.silent[self.silent.index(tag) :]
        elif tag not in INLINE:
            self.paragraphs.append([])
        if tag == self.heading:
            self.heading = ""

    def handle_data(self, data: str) -> None:
        if self.heading:
            self.titles[self.heading][-1].append(data)
        if not self.silent and self.heading != "title":
            self.paragraphs[-1].append(data)


def web_page(text: str, name: str) -> tuple[str, str]:
    """Title and text of an HTML page, without scripts, styles, code, tables and navigation."""
    page = Page()
    page.feed(text)
    page.close()
    titles, headings, paragraphs = map(joined, (page.titles["title"], page.titles["h1"], page.paragraphs))
    # Of "Closures - The Book" the heading is "Closures"; a heading that the title does not begin with is the site's.
    fitting = [heading for heading in headings if not titles or titles[0].startswith(heading)]
    titles = [re.sub(r"\s+[|·–—-]\s+[^|·–—]*$", "", title) for title in titles]
    return next(iter(fitting + titles + headings), name), "\n\n".join(paragraphs)


def joined(elements: list[list[str]]) -> list[str]:
    """The text of each element that has any, on one line."""
    texts = (" ".join("".join(pieces).replace("¶", " ").split()) for pieces in elements)
    return [text for text in texts if text]


def python_module(source: bytes, name: str) -> tuple[str, str]:
    """Title and text of a Python file: the docstrings of the module and of its public classes, functions and methods.

    Each docstring but the module's begins with the name it belongs to, as in `heappush(): Push item onto heap.` or
    `class Counter: Dict subclass for counting hashable items.` The source is parsed, never run. Raises SyntaxError or
    ValueError for what this Python cannot parse.
    """
    with PARSING:
        tree = ast.parse(source, filename=SOURCE)
    own_name = rf"^(?:module\s+)?(?:[\w.]+\.)?{re.escape(name.rpartition('.')[2])}(?:\.py)?\s*[-:–]+\s*"
    overview = re.sub(own_name, "", docstring(tree, ""), flags=re.IGNORECASE)
    about = overview.partition("\n\n")[0].rstrip(".")
    if re.match(r"[a-z]+[ ,-]", about):
        about = about[0].upper() + about[1:]
    says_more = about.casefold().removesuffix(" module") != name.casefold()
    title = f"{name}: {about}" if could_be_title(about) and says_more else name
    return title, "\n\n".join(text for text in (overview, *member_docstrings(tree, "")) if text)


def member_docstrings(parent: ast.AST, prefix: str) -> list[str]:
    texts = []
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.If | ast.Try | ast.ExceptHandler):
            texts += member_docstrings(node, prefix)
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            texts.append(docstring(node, f"class {prefix}{node.name}: "))
            texts += member_docstrings(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            texts.append(docstring(node, f"{prefix}{node.name}(): "))
    return texts


def docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, owner: str) -> str:
    """The clean docstring; its first paragraph gets the full stop that docstrings of one line often lack."""
    first, gap, rest = cleaning.plain(inspect.cleandoc(ast.get_docstring(node, clean=False) or "")).partition("\n\n")
    if first and (first[-1].isalnum() or first[-1] in ")'\""):
        first += "."
    return f"{owner}{first}{gap}{rest}" if first else ""


def module_name(path: str) -> str:
    """`asyncio/base_events.py` -> `asyncio.base_events`; `json/__init__.py` -> `json`."""
    pure = PurePath(path)
    parts = [part for part in pure.with_suffix("").parts if part != "__init__"]
    dotted = not pure.is_absolute() and all(part.isidentifier() for part in parts)
    return ".".join(parts if dotted else parts[-1:]) or pure.parent.name or pure.stem
