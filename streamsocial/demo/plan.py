"""The processes of a demo, in the order in which they start."""

import secrets
import socket
from collections.abc import Mapping
from pathlib import Path

from streamsocial.demo.children import Child, manage, module
from streamsocial.environment import Environment

_WORKER = ("-A", "streamsocial", "worker", "--loglevel", "INFO")


def processes(folder: Path, environ: Mapping[str, str], *, port: int, rate: int | None) -> list[Child]:
    """Page, slots, control, replays, recovery, beat, and a generator unless `rate` is None.

    They stop in reverse: the generator first, and supervision before the slots that it would restart.
    """
    logs = folder / "logs"
    suffix = Environment(environ).text("CELERY_QUEUE_SUFFIX")
    pool = ("-c", str(slot_count(environ) + 1), "--prefetch-multiplier", "1")
    beat = ("beat", "--schedule", str(folder / "beat-schedule"), "--pidfile=")

    def celery(name: str, *options: str) -> list[str]:
        return module("celery", *_WORKER, "-Q", f"{name}{suffix}", *options, "-n", f"{name}@%h")

    web = ("-b", "127.0.0.1", "-p", str(port), "--no-server-name", "streamsocial.asgi:application")
    children = [
        Child("web", module("daphne", *web), logs / "web.log"),
        Child("slots", celery("slots", *pool), logs / "slots.log", stop_seconds=40),
        Child("control", celery("control", "-c", "2"), logs / "control.log"),
        Child("replays", celery("replays", "-c", "1"), logs / "replays.log"),
        # In addition to the ticks of beat, which need Redis: the manager must also detect that Redis is down.
        Child("recovery", manage("run_recovery_manager"), logs / "recovery.log", stop_seconds=10),
        Child("beat", module("celery", "-A", "streamsocial", *beat), logs / "beat.log", stop_seconds=5),
    ]
    if rate is not None:
        seed = str(secrets.randbelow(2**31))
        arguments = ("--count", "0", "--rate", str(rate), "--seed", seed, "--json")
        children.append(
            Child("generator", manage("produce_events", *arguments), logs / "generator.log", stop_seconds=10)
        )
    return children


def slot_count(environ: Mapping[str, str]) -> int:
    return Environment(environ).integer("CONSUMER_SLOTS", 2, minimum=1, maximum=1000)


def free_port(wanted: int) -> int | None:
    """`wanted` if it is free on loopback, else any free port; None without one."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    return None
