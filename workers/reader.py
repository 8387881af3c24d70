"""The reader: which documents a folder holds (`list-documents`), and what one of them says (`read-document`).

Files are read on the machine the agent runs on, so all readers of a mesh need to see the same folder. Nothing that is
read is ever executed. What cannot be read is refused with the reason (`Reject`), so its task ends as `failed` instead
of being tried again; a readable document without prose is a record with `words` 0, since that is nobody's mistake.
"""

import os
from collections import Counter
from pathlib import Path, PurePath
from typing import Any

from streammesh import Agent, Reject
from workers.text import extraction
from workers.text.terms import words

EXTENSIONS = (".md", ".txt", ".rst", ".html", ".htm", ".py")
MAX_BYTES = 1_000_000  # a larger file is listed as skipped, and refused
MAX_TEXT = 200_000  # characters of clean text handed on; a longer text is cut after a paragraph and says so
MAX_DOCUMENTS = 4_000  # in one listing, so that it fits into a result
MAX_SKIPS = 100
TEST_FOLDERS = {"test", "tests", "testing", "testdata", "test_data", "fixtures", "idle_test"}
INSTALLED = {"site-packages", "dist-packages", "node_modules", "__pycache__"}

agent = Agent("reader", slots=4)


@agent.capability("list-documents")
def list_documents(folder: str, extensions: list[str] | None = None, after: str = "") -> dict[str, Any]:
    """The readable documents of a folder, folder by folder; when `more` is true, ask again with `after` the last one.

    Returns {folder, documents: [path inside folder], more: bool, skipped: {reason: count}, skips: [{path, why}]}.
    `skips` names at most 100, and no files of other kinds. Links are not followed.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise Reject(f"no such folder: {folder}")
    wanted = tuple(extension.lower() for extension in extensions or EXTENSIONS)
    documents: list[str] = []
    skips: list[tuple[str, str]] = []
    for here, folders, files in os.walk(root):
        inside = PurePath(here).relative_to(root)
        for name in [*folders, *files]:
            if why := reason_to_skip(Path(here, name), wanted):
                skips.append(((inside / name).as_posix(), why))
            elif name in files:
                documents.append((inside / name).as_posix())
        folders[:] = [name for name in folders if not reason_to_skip(Path(here, name), wanted)]
    left = sorted((path for path in documents if not after or place_of(path) > place_of(after)), key=place_of)
    named = sorted(skip for skip in skips if skip[1] != "another kind of file")
    return {
        "folder": str(root.resolve()),
        "documents": left[:MAX_DOCUMENTS],
        "more": len(left) > MAX_DOCUMENTS,
        "skipped": dict(sorted(Counter(why for _, why in skips).items())),
        "skips": [{"path": path, "why": why} for path, why in named[:MAX_SKIPS]],
    }


def place_of(path: str) -> tuple[str, str]:
    """Documents of one folder stand together, those of the top folder first."""
    return PurePath(path).parent.as_posix(), path


def reason_to_skip(path: Path, extensions: tuple[str, ...]) -> str:
    """Why a folder or file is not read, in words for the user; "" when it is."""
    name = path.name.lower()
    if name.startswith("."):
        return "hidden"
    if path.is_symlink():
        return "a link"
    if path.is_dir():
        return "tests" if name in TEST_FOLDERS else "installed or generated" if name in INSTALLED else ""
    if not name.endswith(extensions) or not path.is_file():
        return "another kind of file"
    if name.endswith("_test.py") or (name.endswith(".py") and name.startswith(("test_", "conftest."))):
        return "tests"
    size = path.stat().st_size
    return f"larger than {MAX_BYTES:,} bytes" if size > MAX_BYTES else "empty" if size == 0 else ""


@agent.capability("read-document")
def read_document(path: str, folder: str = "", max_text: int = MAX_TEXT) -> dict[str, Any]:
    """Title and clean text of one document. With `folder`, `path` is relative to it and may not lead out of it.

    Returns {path, title, kind, text, words, bytes, encoding, truncated}; `words` counts the whole text, also when cut.
    """
    if folder and (PurePath(path).is_absolute() or ".." in PurePath(path).parts):
        raise Reject(f"{path} leads out of {folder}")
    try:
        with Path(folder, path).expanduser().open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Reject(f"cannot read {path}: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise Reject(f"{path} is larger than {MAX_BYTES:,} bytes")
    kind = PurePath(path).suffix.lower().removeprefix(".")
    text, encoding = decode(data, path)
    title, clean = extract(kind, data, text, path)
    kept = clean if len(clean) <= max_text else clean[: max(clean.rfind("\n\n", 0, max_text), 0)]
    return {
        "path": path,
        "title": title,
        "kind": kind,
        "text": kept,
        "words": len(words(clean)),
        "bytes": len(data),
        "encoding": encoding,
        "truncated": len(kept) < len(clean),
    }


def extract(kind: str, data: bytes, text: str, path: str) -> tuple[str, str]:
    """Title and clean text, by kind of file."""
    name = PurePath(path).stem
    if kind in ("html", "htm"):
        return extraction.web_page(text, name)
    if kind != "py":
        return extraction.prose(text, name, "markdown" if kind == "md" else "plain")
    try:
        return extraction.python_module(data, extraction.module_name(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Reject(f"{path} is not source that this Python can parse: {error}") from None


def decode(data: bytes, path: str) -> tuple[str, str]:
    """The text and its encoding: what the byte order mark says, else UTF-8, else Latin-1. Binary data is refused."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        attempts = ["utf-16"]
    elif b"\0" in data:
        raise Reject(f"{path} is binary, not text")
    else:
        attempts = ["utf-8-sig", "latin-1"]
    for encoding in attempts:
        try:
            return data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n"), encoding.removesuffix("-sig")
        except UnicodeDecodeError:
            continue
    raise Reject(f"{path} is not text in {attempts[0]}, as its first bytes say")


if __name__ == "__main__":
    agent.run()
