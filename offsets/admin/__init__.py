"""The admin's pages. Django imports this package; its modules register themselves."""

from offsets.admin import ledger, recovery  # noqa: F401 - imported to register
