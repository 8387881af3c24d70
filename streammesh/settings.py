"""Where the server is and how a process uses it: read once, at the edge, and passed on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from streammesh.errors import ConfigError

__all__ = ["DEFAULT_EMBEDDED", "Settings", "from_env"]

#: Where the embedded server keeps its data when no URL is given.
DEFAULT_EMBEDDED = "embedded://.streammesh"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process needs to find its mesh."""

    url: str = DEFAULT_EMBEDDED
    namespace: str = "mesh"


def from_env(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from ``STREAMMESH_REDIS_URL`` (or ``REDIS_URL``) and ``STREAMMESH_NAMESPACE``.

    ``STREAMMESH_REDIS_URL_FILE`` names a file that holds the URL, for container secrets. The environment is the process's
    own unless another one is given.
    """
    environ = os.environ if environ is None else environ
    url = (
        environ.get("STREAMMESH_REDIS_URL") or _secret(environ, "STREAMMESH_REDIS_URL_FILE") or environ.get("REDIS_URL")
    )
    return Settings(url=url or DEFAULT_EMBEDDED, namespace=environ.get("STREAMMESH_NAMESPACE") or "mesh")


def _secret(environ: Mapping[str, str], name: str) -> str:
    path = environ.get(name)
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{name} names {path}, which cannot be read: {error.strerror}") from None
