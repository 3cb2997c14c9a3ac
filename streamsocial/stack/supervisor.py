"""The stack: the three services of one checkout, started and stopped together."""

import importlib
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from streamsocial.environment import SERVICE_VARIABLES
from streamsocial.stack.errors import MissingPackage, PortTaken, ServiceFailed, StackError
from streamsocial.stack.kafka import Kafka
from streamsocial.stack.postgres import Postgres
from streamsocial.stack.report import Reporter, Silent
from streamsocial.stack.service import Service
from streamsocial.stack.state import State, StateDir
from streamsocial.stack.valkey import Valkey

T = TypeVar("T")

_LOCK_SECONDS = 300
_ANSWER_SECONDS = 10
_SERVICES: tuple[type[Service], ...] = (Kafka, Postgres, Valkey)

#: `unresponsive`: the process exists and does not respond.
ServiceState = Literal["running", "stopped", "unresponsive", "yours"]


@dataclass(frozen=True)
class ServiceStatus:
    name: str
    state: ServiceState
    pid: int | None
    address: str | None
    data_dir: str | None


@dataclass(frozen=True)
class StackStatus:
    services: tuple[ServiceStatus, ...]
    #: Names of the services that this call has started.
    started: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every service that should run is running."""
        return all(service.state in ("running", "yours") for service in self.services)

    def __getitem__(self, name: str) -> ServiceStatus:
        return next(service for service in self.services if service.name == name)


class Stack:
    """Real services for a checkout, its tests, or its demo, under one folder of their own.

    A service whose variable is set in `environ` is the user's: it is neither started nor stopped, and its state is not
    checked.
    """

    def __init__(self, state_dir: Path, *, environ: Mapping[str, str] = os.environ, usual_ports: bool = True) -> None:
        self.directory = StateDir(state_dir)
        self._theirs = {name: environ[name] for name in SERVICE_VARIABLES if environ.get(name)}
        self._usual_ports = usual_ports
        self._choosing = threading.Lock()

    # --- Settings --------------------------------------------------------------------------------

    def plan(self) -> dict[str, str]:
        """Choose ports and passwords, write them to `env`, and return the settings. Starts nothing."""
        with self.alone():
            services = self._load()
            self._choose_ports(services)
            return self._save(services)

    def _load(self) -> list[Service]:
        state = self.directory.load()
        return [service(self.directory, state) for service in _SERVICES]

    def _choose_ports(self, services: list[Service]) -> None:
        """Choose free ports for every service that is not running."""
        for service in services:
            if service.running() is None:
                for name in service.port_names:
                    service.state.choose_port(name, usual=self._usual_ports)

    def _save(self, services: list[Service]) -> dict[str, str]:
        state = services[0].state
        values = {service.variable: service.url() for service in services}
        values["SECRET_KEY"] = state.secret("secret_key")
        state.secret("postgres_superuser")
        self.directory.save(state, values)
        return values | self._theirs

    # --- Up and down -----------------------------------------------------------------------------

    def up(self, progress: Reporter | None = None, *, wipe: bool = False) -> StackStatus:
        """Start what is not running and wait until everything responds.

        Raises StackError if a service fails; the others keep running.
        """
        report = progress or Silent()
        with self.alone(report):
            if wipe and self.directory.exists():
                self._wipe(report)
            services = self._load()
            ours = [service for service in services if service.variable not in self._theirs]
            missing = [service for service in ours if not self._is_healthy(service, report)]
            for service in missing:
                service.fetch(report)
            if missing or not self.directory.env_file.exists():
                self._choose_ports(services)
                self._save(services)
            _together(lambda service: self._start(service, services, report), missing)
            return self._status(services, started=tuple(service.name for service in missing))

    def down(
        self, progress: Reporter | None = None, *, only: Collection[str] | None = None, immediate: bool = False
    ) -> tuple[str, ...]:
        """Stop what this stack started, or only some of it. Returns the names of what was running.

        `immediate` is for data that is about to be deleted.
        """
        if not self.directory.exists():
            return ()
        with self.alone(progress or Silent()):
            return self._stop_all(progress or Silent(), only=only, immediate=immediate)

    def status(self) -> StackStatus:
        """Read the status, without changing anything or waiting for a start in progress."""
        if not self.directory.exists():
            return StackStatus(tuple(self._unknown(service) for service in _SERVICES))
        return self._status(self._load())

    def _wipe(self, report: Reporter) -> None:
        self._stop_all(report, immediate=True)
        report.say(f"Deleting {self.directory.root}")
        self.directory.wipe()

    def _stop_all(self, report: Reporter, *, only: Collection[str] | None = None, immediate: bool) -> tuple[str, ...]:
        """Find them by process, not by the state file, which may be damaged."""

        def stop(service: Service) -> str | None:
            if not service.stop(immediate=immediate):
                return None
            report.say(f"{service.title} is down")
            return service.name

        state = self._state_or_empty()
        services = [kind(self.directory, state) for kind in _SERVICES if only is None or kind.name in only]
        return tuple(name for name in _together(stop, services) if name)

    def _state_or_empty(self) -> State:
        try:
            return self.directory.load()
        except StackError:
            return State()

    def _start(self, service: Service, services: list[Service], report: Reporter) -> None:
        try:
            service.start(report)
        except PortTaken:
            # Another checkout that started at the same moment took the port first.
            with self._choosing:
                self._choose_ports([service])
                self._save(services)
            service.start(report)

    def _is_healthy(self, service: Service, report: Reporter) -> bool:
        process = service.running()
        if process is None:
            return False
        # It may still be starting, after an interrupted `up` or a crash.
        if service.wait_until_it_serves(process, _ANSWER_SECONDS):
            return True
        report.say(f"{service.title} is running but does not respond; restarting it")
        service.stop()
        return False

    # --- Single services, for tests of faults ----------------------------------------------------

    def start_service(self, name: str) -> None:
        """Start one service on the port it had, and wait until it answers."""
        service = self._service(name)
        with self.alone():
            if service.running() is None:
                service.start(Silent())

    def stop_service(self, name: str) -> None:
        with self.alone():
            self._service(name).stop()

    def kill_service(self, name: str) -> None:
        """Send SIGKILL, as the system's out-of-memory killer would."""
        with self.alone():
            process = self._service(name).running()
            if process is None:
                raise StackError(f"{name} is not running.")
            process.kill_now()

    def restart_service(self, name: str, *, immediate: bool = False) -> None:
        """Stop and start; `immediate` skips the clean shutdown, so that it has to recover."""
        service = self._service(name)
        with self.alone():
            service.stop(immediate=immediate)
            service.start(Silent())

    def _service(self, name: str) -> Service:
        for service in self._load():
            if service.name == name:
                if service.variable in self._theirs:
                    raise StackError(
                        f"{service.title} is yours ({service.variable} is set); the stack does not manage it."
                    )
                return service
        raise ValueError(f"Unknown service {name!r}.")

    # --- Status ----------------------------------------------------------------------------------

    def _status(self, services: list[Service], started: tuple[str, ...] = ()) -> StackStatus:
        return StackStatus(tuple(_together(self._look, services)), started)

    def _look(self, service: Service) -> ServiceStatus:
        if service.variable in self._theirs:
            return ServiceStatus(service.name, "yours", None, None, None)
        process = service.running()
        state: ServiceState = "stopped"
        if process is not None:
            state = "running" if service.serves(process) else "unresponsive"
        planned = service.port_names[0] in service.state.ports
        return ServiceStatus(
            service.name,
            state,
            process.pid if process else None,
            service.address if planned else None,
            str(service.data),
        )

    def _unknown(self, service: type[Service]) -> ServiceStatus:
        yours = service.variable in self._theirs
        return ServiceStatus(service.name, "yours" if yours else "stopped", None, None, None)

    # --- One at a time ---------------------------------------------------------------------------

    @contextmanager
    def alone(self, report: Reporter | None = None) -> Iterator[None]:
        """Hold this folder's lock, so that one command at a time changes the stack. A dead holder's lock is free."""
        try:
            filelock = importlib.import_module("filelock")
        except ImportError as error:
            raise MissingPackage("filelock") from error
        self.directory.create()
        lock = filelock.FileLock(self.directory.lock_file)
        try:
            try:
                lock.acquire(timeout=0.1)
            except filelock.Timeout:
                if report is not None:
                    report.say("Waiting for another `stack` command of this checkout")
                lock.acquire(timeout=_LOCK_SECONDS)
        except filelock.Timeout as error:
            raise StackError(
                f"Another `stack` command has held {self.directory.lock_file} for {_LOCK_SECONDS} seconds."
            ) from error
        try:
            yield
        finally:
            lock.release()


def _together(work: Callable[[Service], T], services: list[Service]) -> list[T]:
    """Do the same with all services in parallel; all are tried before a failure is raised."""
    if not services:
        return []
    with ThreadPoolExecutor(len(services)) as pool:
        jobs = [pool.submit(work, service) for service in services]
    failures = [failure for job in jobs if (failure := job.exception())]
    if len(failures) > 1 and all(isinstance(failure, StackError) for failure in failures):
        raise ServiceFailed("\n".join(str(failure) for failure in failures))
    return [job.result() for job in jobs]
