"""Fixtures of all tests; the stack itself comes from `tests.stack_plugin`."""

from tests.cases import case

__all__ = ["case"]
