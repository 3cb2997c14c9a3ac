"""The embedded services: real Apache Kafka, PostgreSQL and Valkey from Python packages, for one checkout.

Nothing of the application is imported here but where its settings come from, so that `manage.py stack`
works before there is a database.
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
