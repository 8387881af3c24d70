"""Titles and text of web pages and Python modules."""

import subprocess
import sys
from pathlib import Path

from workers.text.extraction import module_name, prose, python_module, web_page

ROOT = Path(__file__).resolve().parents[2]
PAGE = """<!doctype html><html><head><title>Closures - The Book</title><style>p { color: red }</style></head>
<body><nav>Home Next</nav><h1>The Book</h1><h1>Closures<a class="header" href="#c">¶</a></h1>
<p>A closure <em>captures</em> its&nbsp;environment &amp; more.</p>
<pre>let f = || 1;</pre><script>alert("x < y")</script>
<ul><li>One item<li>Two items</ul><div>Tail<br>after break</div><footer>Imprint</footer></body></html>"""

MODULE = b'''"""heap - Priority queues.

Heaps are arrays.
"""
import os
raise SystemExit("never run")

def push(heap, item):
    """Push item onto heap"""

def _hidden():
    """Not for readers."""

class Heap:
    """A heap.

    >>> Heap()
    """

    def pop(self):
        """Pop the smallest item."""
        def inner():
            """Not for readers either."""

    async def wait(self):
        """Wait for an item."""

try:
    pass
except ImportError:
    def fallback():
        """Do without."""
'''


def test_a_page_is_its_visible_prose() -> None:
    title, text = web_page(PAGE, "page")
    assert title == "Closures"
    assert text.split("\n\n") == [
        "The Book",
        "Closures",
        "A closure captures its environment & more.",
        "One item",
        "Two items",
        "Tail",
        "after break",
    ]


def test_the_title_of_a_page_loses_the_name_of_the_site() -> None:
    assert web_page("<title>Lints - The Book</title><h1>The Book</h1>", "page")[0] == "Lints"
    assert web_page("<h1>Only a heading</h1>", "page")[0] == "Only a heading"
    assert web_page("<p>No heading at all.", "page")[0] == "page"


def test_an_element_left_open_does_not_silence_the_page() -> None:
    assert web_page("<nav><form>x</nav><p>Seen.", "page")[1] == "Seen."


def test_a_module_is_its_public_docstrings_in_order() -> None:
    title, text = python_module(MODULE, "tools.heap")
    assert title == "tools.heap: Priority queues"
    assert text.split("\n\n") == [
        "Priority queues.",
        "Heaps are arrays.",
        "push(): Push item onto heap.",
        "class Heap: A heap.",
        "Heap.pop(): Pop the smallest item.",
        "Heap.wait(): Wait for an item.",
        "fallback(): Do without.",
    ]


def test_a_module_without_a_short_first_line_has_its_name_as_title() -> None:
    assert python_module(b"x = 1", "a.b") == ("a.b", "")
    assert python_module(b'"""a.b"""', "a.b")[0] == "a.b"
    assert python_module(b'"""One sentence. Another one."""', "a.b")[0] == "a.b"


def test_odd_escapes_in_source_are_nobodys_warning() -> None:
    source = '"""Text."""\nx = "\\d"'
    code = "import sys; from workers.text import extraction; print(extraction.python_module(sys.argv[1].encode(), 'm'))"
    command = [sys.executable, "-W", "default", "-c", code, source]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("('m: Text', 'Text.')\n", "")


def test_the_first_line_is_the_title_when_it_could_be_one() -> None:
    assert prose("# A guide\n\nText here.", "file", "markdown") == ("A guide", "A guide\n\nText here.")
    assert prose("It begins with a sentence. And goes on.", "file")[0] == "file"
    assert prose("x" * 200, "file")[0] == "file"
    assert prose("", "file") == ("file", "")


def test_names_of_modules() -> None:
    assert module_name("asyncio/base_events.py") == "asyncio.base_events"
    assert module_name("json/__init__.py") == "json"
    assert module_name("config-3.11/python-config.py") == "python-config"
    assert module_name("/usr/lib/python3/heapq.py") == "heapq"
    assert module_name("__init__.py") == "__init__"
