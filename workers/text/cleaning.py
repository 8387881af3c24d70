"""Markup to clean text: plain text, reStructuredText and docstrings by `plain`, Markdown by `markdown`.

Both promise prose only: no code, doctests, tables, directives, field lists or inline marks. They never fail: what they
do not understand is kept as text. Where code and prose look alike they rather cut, since a digest quotes word for word.
"""

import re
from collections.abc import Iterator

BULLET = re.compile(r"\s*(?:[-*+•]|\(?\d{1,2}[.)]|\(?[a-z]\))\s+(?=\S)")
RULE = re.compile(r"\s*([=\-~^*#\"'`+_.:])\1{2,}\s*$")
TABLE = re.compile(r"\s*(?:\||\+[-=+]{3,}|[=-]{2,}(?:\s+[=-]{2,})+\s*$)")
FIELD = re.compile(r"\s*(?::[a-z][\w *.,\[\]]*:(?:\s|$)|@(?:param|type|return|raise)\w*\b)")
DIRECTIVE = re.compile(r"\s*\.\.(?:\s+(?P<name>[\w:-]+)::(?P<rest>.*)|\s.*|$)")
PROSE_DIRECTIVES = {"note", "warning", "tip", "hint", "important", "caution", "attention", "seealso"}
SIGNATURE = re.compile(r"\s*[\w.]+\(.*\)\s*(?:->.*|:)?$")
STARTER = re.compile(
    r"\s*(?:The|This|These|It|If|When|Since|There|Do|Returns?|Raises?|However|But|You|Use[ds]?|For|See|Note|Only)\b"
)
CODE = re.compile(
    r"""\s*(?:
      >>> | \.\.\.\s | [$%\#]\s? | @\w+(?:\(.*)?$ | [{}\[\]]              # prompts, comments, decorators, brackets
    | from\s[\w.]+\simport\b | import\s[\w.]+(?:,.*|\sas\s.*)?$           # statements
    | (?:async\s)?def\s\w+\( | class\s\w+(?:\(.*)?:
    | (?:for|if|while|with|elif|else|try|except)\b.*:\s*(?:\#.*)?$
    | (?:return|raise|yield|del|pass|break)(?:\s\S+)?$
    | [\w.\[\]'"]+(?:,\s*[\w.]+)*\s*(?:[-+*/|&]?=|->|::=|=>)\s*\S         # assignments, signatures, grammars
    | [\w.]+\(.*\)?\s*(?:->.*|\#.*|:)?$(?<=[^.])                          # a call alone on its line
    | </?\w[^>]*>
    )""",
    re.VERBOSE,
)
SYMBOLS = re.compile(r"[=()\[\]{}<>_;+*/\\|\"#%&@^$~]")

INLINE = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\s+", " "),
        (r" ?<(?:https?|ftp|mailto):[^>\s]{0,500}>(?!`)", ""),  # a link in angle brackets says nothing in prose
        (r":[\w:+-]{1,60}:`~?!?([^`<]+?) ?<[^`]*>`", r"\1"),  # :role:`text <target>`
        (r":[\w:+-]{1,60}:`~(?:[^`]*\.)?([^`.]+)`", r"\1"),  # :role:`~package.name` shows its end, as Sphinx does
        (r":[\w:+-]{1,60}:`!?([^`]+)`", r"\1"),
        (r"`([^`<]+?) ?<[^`]*>`__?", r"\1"),  # `text <target>`_
        (r"(?<!\w)`(?=\S)([^`']+)(?<=\S)'(?!\w)", r"\1"),  # `the quoting of old manuals'
        (r"`([^`]+)`_{0,2}", r"\1"),
        (r"`", ""),
        (r" ?\[#?\w{1,8}\]_", ""),  # footnotes and citations
        (r"(?<![\w*\\])(\*{1,3})(?=[^\s*])([^*]+?)(?<=[^\s*\\,(])\1(?![\w*])", r"\2"),
        (r"\\([*_`|\\<>#\[\]])", r"\1"),
        (r"(?<=[\w)\"'.]) (?:--|---|—|-) (?=[A-Za-z])", " – "),
        (r" ([,;])(?= )", r"\1"),
        (r"::$", ":"),
    )
]
FENCE = re.compile(r"^ *(```+|~~~+).*?(?:^ *\1[`~]* *$|\Z)", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?<=\n\n)(?:(?: {4}|\t).*(?:\n+|$))+")
MARKDOWN = [
    (re.compile(pattern, re.DOTALL | re.MULTILINE), replacement)
    for pattern, replacement in (
        (r"\A\s*^---\n.*?^---\n", ""),  # front matter
        (r"<!--(?:(?!<!--).)*?-->", ""),
        (r"^\[[^\]\n]+\]:\s*\S[^\n]*$", ""),  # link and footnote definitions
        (r"!\[[^\]]{0,500}\](?:\([^)]{0,500}\)|\[[^\]]{0,500}\])", ""),
        (r"\[\s*\](?:\([^)]{0,500}\)|\[[^\]]{0,500}\])", ""),  # what is left of a badge
        (r"\[([^\]]{1,500})\](?:\((?:[^()]|\([^)]{0,200}\)){0,500}\)|\[[^\]]{0,500}\])", r"\1"),
        (r"\[\^[\w-]+\]", ""),
        (r"</?[a-zA-Z][\w-]*(?:\s[^<>]*)?/?>", ""),
        (r"^ {0,3}#{1,6}[ \t]+([^\n]*?)[ \t#]*$", r"\n\1\n===\n"),
        (r"^ {0,3}(?:> ?)+", ""),
        (r"(?<![\w\\])(_{1,2})(?=[^\s_])([^_\n]+?)(?<=\S)\1(?!\w)", r"\2"),
        (r"^[ \t]*[-*+] \[[ xX]\] ", "- "),
    )
]

# Inside a code span nothing is markup: its special characters hide in a private area of Unicode until all is done.
HIDDEN = str.maketrans({character: chr(0xE000 + ord(character)) for character in "*_<>[]`'|\\#:~"})
SHOWN = {ord(private): character for character, private in HIDDEN.items()}


def plain(text: str) -> str:
    """Clean text of plain text, reStructuredText or a docstring."""
    text = re.sub(r"``([^`\n](?:.*?[^`\n])??)``", hide, text)
    paragraphs = (inline(item) for block in prose_blocks(text) for item in items(block))
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph).translate(SHOWN)


def markdown(text: str) -> str:
    """Clean text of a Markdown document."""
    text = "\n\n" + "\n".join(line.rstrip() for line in text.splitlines())
    text = re.sub(r"(?<!`)(`{1,3})([^`\n]+(?:\n[^`\n]+)?)\1(?!`)", hide, INDENTED.sub("\n", FENCE.sub("\n", text)))
    for pattern, replacement in MARKDOWN:
        text = pattern.sub(replacement, text)
    return plain(text)


def hide(span: re.Match[str]) -> str:
    return span[span.lastindex or 0].translate(HIDDEN)


def inline(paragraph: str) -> str:
    """The paragraph on one line and without inline markup."""
    for pattern, replacement in INLINE:
        paragraph = pattern.sub(replacement, paragraph)
    return paragraph.strip()


def prose_blocks(text: str) -> Iterator[list[str]]:
    """Groups of adjacent lines, without literal blocks, doctests, tables and directives that hold no prose."""
    block: list[str] = []
    skip: int | None = None  # everything indented deeper than this is a literal block or a directive's content
    doctest = False
    for line in [*text.expandtabs(4).splitlines(), ""]:
        indent = len(line) - len(line.lstrip())
        directive = DIRECTIVE.match(line)
        if not line.strip() or directive:
            if len(block) > 1 and SIGNATURE.match(block[0]) and block[1].lstrip()[:1].isupper():
                del block[0]
            if block and not is_code(block) and not any(map(TABLE.match, block)):
                yield block
            block, doctest = [], False
        if not line.strip() or (skip is not None and indent > skip):
            continue
        skip = None
        doctest = doctest or line.lstrip().startswith(">>>")
        if directive:
            rest = (directive["rest"] or "").strip()
            if directive["name"] not in PROSE_DIRECTIVES:
                skip = indent
            elif rest:
                block.append(" " * (indent + 3) + rest)
        elif not doctest:
            block.append(line)
            if line.rstrip().endswith("::"):
                skip = indent


def is_code(lines: list[str]) -> bool:
    """True when at least half of the lines look like code rather than prose."""
    is_heading = any(map(RULE.match, lines[:2]))
    return not is_heading and 2 * sum(map(is_code_line, lines)) >= len(lines)


def is_code_line(line: str) -> bool:
    if CODE.match(line):
        return True
    pieces = inline(line).split()
    letters = "".join(pieces)
    dense = len(letters) > 9 and len(SYMBOLS.findall(letters)) > 0.2 * len(letters)
    return dense and sum(map(str.isalpha, pieces)) < 5


def items(block: list[str]) -> Iterator[str]:
    """The paragraphs of a block: headings, list items and runs of text, each as one string."""
    item: list[str] = []
    indent = 0
    for line in [*block, ""]:
        before, indent = indent, len(line) - len(line.lstrip())
        bullet, rule = BULLET.match(line), RULE.match(line)
        if not line or bullet or rule or FIELD.match(line) or (item and starts_anew(item, line, before - indent)):
            if item and (rule or not (FIELD.match(item[0]) or is_code(item))):
                yield " ".join(item)
            item = []
        if bullet:
            indent = bullet.end()
            line = line[indent:]
        if not rule:
            item.append(line.strip())


def starts_anew(item: list[str], line: str, dedent: int) -> bool:
    """Whether a line begins a new paragraph, by its indentation, or because the one before lacks its full stop."""
    open_end = item[-1][-1:] not in ".:!?;,"
    if open_end and STARTER.match(line):
        return True
    first_line_indent = 0 < dedent < 8 and len(item) == 1 and item[0][-1:] not in ".:"
    return dedent != 0 and not first_line_indent and not (open_end and line.lstrip()[:1].islower())
