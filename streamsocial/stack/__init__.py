"""The embedded services: real Apache Kafka, PostgreSQL and Valkey from Python packages, for one checkout.

Of the application this imports only where its settings come from, so that `manage.py stack` works without a database.
"""

from streamsocial.stack.errors import MissingPackage, ServiceFailed, StackError
from streamsocial.stack.report import Reporter, Silent
from streamsocial.stack.supervisor import ServiceStatus, Stack, StackStatus

__all__ = [
    "MissingPackage",
    "Reporter",
    "ServiceFailed",
    "ServiceStatus",
    "Silent",
    "Stack",
    "StackError",
    "StackStatus",
]
