"""The commit policy of this installation: loaded by dotted path, checked, and guarded: its errors lose no counts."""

import inspect
import logging
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from offsets.policies import ByBytes, ByCount, ByTime, CommitPolicy, Progress, answer
from offsets.text import describe_error
from offsets.types import BatchStats

logger = logging.getLogger(__name__)

#: Modules that a COMMIT_POLICY of an earlier version may name, and where their content is now.
_MOVED_MODULES = {"offsets.strategy": "offsets.processing.commit_policy"}


def default_policy() -> CommitPolicy:
    """By time, count or bytes, whichever comes first, from COMMIT_INTERVAL_MS, COMMIT_MAX_RECORDS, COMMIT_MAX_BYTES."""
    by_time = ByTime(settings.COMMIT_INTERVAL_MS / 1000)
    return by_time | ByCount(settings.COMMIT_MAX_RECORDS) | ByBytes(settings.COMMIT_MAX_BYTES)


def load_policy() -> CommitPolicy:
    """What COMMIT_POLICY names: a policy, or something that makes one when called. Raises ImproperPolicyError."""
    path = settings.COMMIT_POLICY
    module, _, name = path.rpartition(".")
    if module in _MOVED_MODULES:
        raise ImproperPolicyError(f"COMMIT_POLICY {path!r} has moved. Set it to '{_MOVED_MODULES[module]}.{name}'.")
    try:
        imported: Any = import_string(path)
        # A policy may itself be callable; a class has a method `due`, and is not a policy yet.
        is_factory = isinstance(imported, type) or not hasattr(imported, "due")
        policy = imported() if is_factory and callable(imported) else imported
    except Exception as error:
        raise ImproperPolicyError(
            f"COMMIT_POLICY {path!r} cannot be loaded: {describe_error(error).rstrip('.')}."
        ) from error
    reason = _unfit(policy)
    if reason:
        raise ImproperPolicyError(f"COMMIT_POLICY {path!r} is not a commit policy: {reason}.")
    checked: CommitPolicy = policy
    return checked


def _unfit(policy: object) -> str:
    """Why the worker could not call it; empty when it can."""
    if isinstance(policy, type) or not isinstance(policy, CommitPolicy):
        return "it has no method due(progress)"
    if inspect.iscoroutinefunction(policy.due):
        return "its method due is asynchronous, and the worker calls it from a thread, without an event loop"
    try:
        inspect.signature(policy.due).bind(Progress(BatchStats(), 0.0, 0))
    except TypeError as error:
        return f"it cannot be called as due(progress): {error}"
    except ValueError:  # written in C: it shows no signature
        pass
    return ""


class ImproperPolicyError(Exception):
    """The setting COMMIT_POLICY does not lead to a policy; the message says why."""


def refused_policy() -> str:
    """Why the commit policy cannot be used; empty when it can."""
    try:
        load_policy()
    except ImproperPolicyError as error:
        return str(error)
    return ""


class GuardedPolicy:
    """A user's policy within bounds: it may delay a commit only so long, and its errors stop nothing else.

    After COMMIT_MAX_SECONDS, or COMMIT_MAX_RECORDS fetched records, the commit is due whatever it says. A policy that
    raises is replaced by the default until the worker ends; `on_trouble(text)` is called then.
    """

    def __init__(self, policy: CommitPolicy, on_trouble: Callable[[str], None]) -> None:
        self._policy = policy
        self._on_trouble = on_trouble
        self._bounds = ByTime(settings.COMMIT_MAX_SECONDS) | ByCount(settings.COMMIT_MAX_RECORDS)

    def due(self, progress: Progress) -> bool:
        try:
            wanted = answer(self._policy, progress)
        except Exception as error:
            logger.exception("The commit policy failed; the default one is used until this worker ends.")
            self._on_trouble(f"the commit policy failed, the default one is used: {describe_error(error)}")
            self._policy = default_policy()
            wanted = self._policy.due(progress)
        return wanted or self._bounds.due(progress)
