"""The site below a path prefix, by the setting URL_PREFIX or by the server (`daphne --root-path`).

A proxy may keep the prefix in the path that it passes on, or strip it: both work.
"""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urljoin

from django.conf import settings
from django.contrib.staticfiles.storage import StaticFilesStorage
from django.urls import get_script_prefix

Application = Callable[[Any, Any, Any], Awaitable[None]]


class PrefixedStaticFiles(StaticFilesStorage):
    """Static URLs below the prefix of the current request; Django's own storage keeps that of the first."""

    def url(self, name: str | None) -> str:
        url = super().url(name)
        prefix = get_script_prefix()
        return url if url.startswith(prefix) else urljoin(prefix, url.lstrip("/"))


def prefix_of(scope: dict[str, Any]) -> str:
    """Without a slash at the end; empty at the root of the host."""
    return str(settings.FORCE_SCRIPT_NAME or scope.get("root_path") or "").rstrip("/")


def without_prefix(path: str, prefix: str) -> str:
    """The path inside the site. A proxy may have stripped the prefix already."""
    return path.removeprefix(prefix) if path == prefix or path.startswith(f"{prefix}/") else path


class WithPrefix:
    """For HTTP: the path always begins with the prefix, from which Django takes what it builds addresses of."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        prefix = prefix_of(scope)
        path = prefix + without_prefix(scope["path"], prefix)
        await self._application({**scope, "root_path": prefix, "path": path}, receive, send)


class WithoutPrefix:
    """For websockets: the path never begins with the prefix. Their router would reject one that was stripped."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        path = without_prefix(scope["path"], prefix_of(scope))
        await self._application({**scope, "root_path": "", "path": path}, receive, send)
