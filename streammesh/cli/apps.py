"""Finding the Agent that `--app module:attribute` means, with an answer for everything that can be wrong about it."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

from streammesh.cli.endings import Ended

if TYPE_CHECKING:
    from streammesh.agent import Agent

__all__ = ["find_agent"]


def find_agent(app: str, *, verbose: bool = False) -> Agent:
    """Import ``module:attribute`` from the current directory or the path, and return the Agent.

    The attribute may be left out when the module has `agent`, `app`, or one Agent only. Raises Ended (exit 2), naming what
    is there instead.
    """
    from streammesh.agent import Agent

    name, colon, attribute = app.partition(":")
    if not name or (colon and not attribute):
        raise Ended(f"--app {app!r} is no app; expected module:agent, such as workers.reader:agent", 2)
    if name.endswith(".py") or os.sep in name:
        better = name.removesuffix(".py").strip("./").replace(os.sep, ".")
        raise Ended(f"--app takes a module, not a file: --app {better}{colon}{attribute}", 2)
    module = _import(name, verbose)
    here = {word: value for word, value in vars(module).items() if isinstance(value, Agent)}
    if not attribute:
        attribute = next((word for word in ("agent", "app") if word in here), "")
        if not attribute and len(here) != 1:
            raise Ended(f"module {name} has {_listed(here, name)}; say which: --app {name}:NAME", 2)
        attribute = attribute or next(iter(here))
    found: Any = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            close = difflib.get_close_matches(part, [word for word in vars(module) if not word.startswith("_")], n=1)
            hint = f", did you mean {close[0]}?" if close else ""
            raise Ended(f"module {name} has no {attribute!r}{hint}; it has {_listed(here, name)}", 2) from None
    if not isinstance(found, Agent):
        raise Ended(f"{app} is a {type(found).__name__}, not an Agent; the module has {_listed(here, name)}", 2)
    return found


def _listed(agents: dict[str, Agent], module: str) -> str:
    if not agents:
        return 'no Agent (make one: agent = Agent("name"))'
    return "the agents " + ", ".join(f"{module}:{word}" for word in sorted(agents))


def _import(name: str, verbose: bool) -> Any:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing and (name == missing or name.startswith(f"{missing}.")):
            raise Ended(
                f"there is no module {missing!r} in {here} or on the path; run from the folder that holds it, or set PYTHONPATH",
                2,
            ) from None
        raise Ended(f"module {name} needs {missing!r}, which is not installed in {sys.prefix}", 2) from None
    except Exception as error:
        if verbose:
            traceback.print_exception(error)
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
        where = f" ({frames[-1].filename}:{frames[-1].lineno})" if len(frames) > 1 else ""
        if isinstance(error, SyntaxError):
            where = f" ({error.filename}:{error.lineno})"
            raise Ended(f"module {name} cannot be imported: {type(error).__name__}: {error.msg}{where}", 2) from None
        raise Ended(f"module {name} cannot be imported: {type(error).__name__}: {error}{where}", 2) from None
