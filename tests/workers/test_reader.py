"""Which documents a folder holds, and what is read from them."""

from pathlib import Path

import pytest

from streammesh import Reject
from workers import reader
from workers.reader import list_documents, read_document


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "b.md": "# Title\n\nSome text.",
        "a.TXT": "Text.",
        "deep/er/page.html": "<p>Hi.",
        "package/module.py": '"""Doc."""',
        "package/test_module.py": '"""Doc."""',
        "package/conftest.py": '"""Doc."""',
        "tests/notes.md": "Text.",
        ".hidden/notes.md": "Text.",
        ".notes.md": "Text.",
        "node_modules/lib/readme.md": "Text.",
        "empty.md": "",
        "huge.txt": "x" * 1_000_001,
        "picture.png": "...",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "link.md").symlink_to(tmp_path / "b.md")
    return tmp_path


def test_a_listing_is_sorted_and_says_what_it_left_out(folder: Path) -> None:
    assert list_documents(str(folder)) == {
        "folder": str(folder.resolve()),
        "documents": ["a.TXT", "b.md", "deep/er/page.html", "package/module.py"],
        "more": False,
        "skipped": {
            "a link": 1,
            "another kind of file": 1,
            "empty": 1,
            "hidden": 2,
            "installed or generated": 1,
            "larger than 1,000,000 bytes": 1,
            "tests": 3,
        },
        "skips": [
            {"path": ".hidden", "why": "hidden"},
            {"path": ".notes.md", "why": "hidden"},
            {"path": "empty.md", "why": "empty"},
            {"path": "huge.txt", "why": "larger than 1,000,000 bytes"},
            {"path": "link.md", "why": "a link"},
            {"path": "node_modules", "why": "installed or generated"},
            {"path": "package/conftest.py", "why": "tests"},
            {"path": "package/test_module.py", "why": "tests"},
            {"path": "tests", "why": "tests"},
        ],
    }


def test_documents_of_one_folder_stand_together(tmp_path: Path) -> None:
    for name in ("a/b/1.md", "a/2.md", "a-b/3.md", "z.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("Text.")
    listed = list_documents(str(tmp_path))["documents"]
    assert listed == ["z.md", "a/2.md", "a-b/3.md", "a/b/1.md"]
    for number, path in enumerate(listed):
        assert list_documents(str(tmp_path), after=path)["documents"] == listed[number + 1 :]


def test_a_folder_of_tests_can_be_read_when_it_is_what_was_asked_for(folder: Path) -> None:
    assert list_documents(str(folder / "tests"))["documents"] == ["notes.md"]


def test_other_extensions_can_be_asked_for(folder: Path) -> None:
    assert list_documents(str(folder), extensions=[".PNG"])["documents"] == ["picture.png"]


def test_a_long_listing_comes_in_pages(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_DOCUMENTS", 3)
    first = list_documents(str(folder))
    assert (len(first["documents"]), first["more"]) == (3, True)
    second = list_documents(str(folder), after=first["documents"][-1])
    assert (second["documents"], second["more"]) == (["package/module.py"], False)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Reject, match="no such folder"):
        list_documents(str(tmp_path / "nowhere"))


def test_a_document_is_title_text_and_where_it_came_from(folder: Path) -> None:
    assert read_document("b.md", folder=str(folder)) == {
        "path": "b.md",
        "title": "Title",
        "kind": "md",
        "text": "Title\n\nSome text.",
        "words": 3,
        "bytes": 19,
        "encoding": "utf-8",
        "truncated": False,
    }
    assert read_document(str(folder / "deep/er/page.html"))["text"] == "Hi."
    assert read_document("package/module.py", folder=str(folder))["title"] == "package.module: Doc"


@pytest.mark.parametrize(
    ("data", "encoding", "text"),
    [
        ("Grüße.".encode(), "utf-8", "Grüße."),
        (b"\xef\xbb\xbfMarked.", "utf-8", "Marked."),
        ("Grüße.".encode("latin-1"), "latin-1", "Grüße."),
        ("Grüße.".encode("utf-16"), "utf-16", "Grüße."),
        (b"Two\r\nlines.\r\rMac.", "utf-8", "Two lines.\n\nMac."),
    ],
)
def test_encodings_are_told_apart(tmp_path: Path, data: bytes, encoding: str, text: str) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    record = read_document("a.txt", folder=str(tmp_path))
    assert (record["encoding"], record["text"]) == (encoding, text)


@pytest.mark.parametrize("name", ["none.txt", "blank.txt", "code.py", "bare.html"])
def test_a_document_without_prose_is_a_record_without_words(tmp_path: Path, name: str) -> None:
    contents = {"none.txt": "", "blank.txt": " \n\n", "code.py": "x = 1\n", "bare.html": "<script>x</script>"}
    (tmp_path / name).write_text(contents[name])
    record = read_document(name, folder=str(tmp_path))
    assert (record["text"], record["words"]) == ("", 0)
    assert record["title"]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("gone.txt", None, "cannot read gone.txt: No such file"),
        ("image.txt", b"\x89PNG\0\0", "binary"),
        ("odd.txt", b"\xff\xfea\0b", "not text in utf-16"),
        ("two.py", b"print 'hi'\n", "cannot be parsed|can parse"),
        ("big.txt", b"x" * 1_000_001, "larger than 1,000,000 bytes"),
        ("../out.txt", None, "leads out of"),
        ("/etc/hostname", None, "leads out of"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(
    tmp_path: Path, name: str, data: bytes | None, reason: str
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(Reject, match=reason):
        read_document(name, folder=str(tmp_path))


def test_a_long_text_is_cut_after_a_paragraph_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One paragraph.\n\nSecond paragraph.\n\nThird paragraph.")
    record = read_document("a.txt", folder=str(tmp_path), max_text=40)
    assert record["text"] == "One paragraph.\n\nSecond paragraph."
    assert (record["truncated"], record["words"]) == (True, 6)
