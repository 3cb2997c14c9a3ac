"""Rows of the fault table: PostgreSQL that refuses, vanishes or ends a session, and a handler that raises."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from django.db import connection

from offsets.models import DeadLetter, Incident
from tests.faults.scene import DEADLINE, FIRST, PARTITIONS, Row, Scene
from tests.support.cut_proxy import CutProxy
from tests.support.processes import Background, manage_json, resume, stopped, wait_for
from tests.support.read_only import read_only

READ_ONLY_SECONDS = float(os.environ.get("READ_ONLY_SECONDS", "10"))


def proxied(database_url: str) -> tuple[CutProxy, str]:
    """A proxy in front of the database, and the URL that goes through it."""
    place = database_url.rpartition("@")[2].partition("/")[0]
    host, _, port = place.rpartition(":")
    proxy = CutProxy(host, int(port))
    return proxy, database_url.replace(place, f"127.0.0.1:{proxy.port}")


def no_traceback(*processes: Background) -> None:
    for process in processes:
        assert process.process.poll() is None, process.output()
        assert "Traceback" not in process.output(), process.output()


def database_read_only(scene: Scene) -> Row:
    scene.play()
    since = scene.now()
    with read_only(scene.env["DATABASE_URL"]):
        until = time.monotonic() + READ_ONLY_SECONDS
        processes = (*scene.workers, *scene.managers)
        wait_for("all say why they wait", lambda: all("read-only transaction" in p.output() for p in processes), 60)
        wait_for("it lasts a while", lambda: time.monotonic() > until, READ_ONLY_SECONDS + 10)
    incident = scene.incident("database_unavailable")
    assert "read-only" in incident.summary, incident.summary
    lasted = (scene.closed(incident).closed_at - incident.began_at).total_seconds()  # type: ignore[operator]
    assert lasted > READ_ONLY_SECONDS - 3, lasted
    no_traceback(*scene.workers, *scene.managers)
    assert Incident.objects.filter(group_id=scene.group, kind="database_unavailable").count() == 1
    return scene.row("PostgreSQL read-only", since, incident, f"for {READ_ONLY_SECONDS:.0f} s")


def session_ended_while_idle(scene: Scene) -> Row:
    """The only worker is stopped in its transaction until the server ends its session, and then continued."""
    token = scene.folder / "stop"
    scene.env |= {"IDLE_IN_TRANSACTION_TIMEOUT_MS": "1500", "HEARTBEAT_TIMEOUT_SECONDS": "30"}
    worker = scene.worker(FAILPOINTS=f"before_commit=stop@{token}")
    scene.play(workers=0)
    row = scene.worker_of(worker)
    since = scene.now()
    token.touch()
    wait_for("it stops in its transaction", lambda: stopped(row.process_id), DEADLINE)
    wait_for("the server ends its session", lambda: not _has_session(row.pk), DEADLINE)
    resume(row.process_id)
    before = scene.counted()
    wait_for("it goes on by itself", lambda: scene.counted() > before or scene.keep_going(), DEADLINE)
    assert "idle-in-transaction timeout" in worker.output()
    no_traceback(worker)
    return scene.row("session ended by its idle timeout", since, None, "within a retry")


def _has_session(application_name: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_stat_activity WHERE application_name = %s", [application_name])
        return cursor.fetchone() is not None


def connection_half_open(scene: Scene) -> Row:
    """The database goes silent behind one worker; it says so, and SIGTERM ends another such worker in its deadline."""
    proxy, url = proxied(scene.env["DATABASE_URL"])
    try:
        scene.play(DATABASE_URL=url, DATABASE_ANSWER_SECONDS="3", SHUTDOWN_SECONDS="8")
        waits, ends = scene.workers
        since = scene.now()
        proxy.go_silent()
        began = time.monotonic()
        wait_for("it notices", lambda: "database: " in waits.output(), 30)
        noticed = time.monotonic() - began
        began = time.monotonic()
        status = ends.end()
        ended = time.monotonic() - began
        assert ended < 8 + 5, f"{ended:.1f} s: {ends.output()[-2000:]}"
        assert status in (0, 1), f"it ended by itself, not by SIGKILL: {status}"
        proxy.come_back()
        row = scene.row("half-open connection", since, None, f"noticed in {noticed:.1f} s, SIGTERM {ended:.1f} s")
        no_traceback(waits)
        return row
    finally:
        proxy.close()


@contextmanager
def frozen(scene: Scene, service: str) -> Iterator[None]:
    """The service's connections stay open, and nothing answers on them."""
    process = scene.stack._service(service).running()
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def broker_frozen(scene: Scene) -> Row:
    scene.play(SHUTDOWN_SECONDS="8")
    for producer in scene._producers:
        producer.process.wait(DEADLINE)
    waits, ends = scene.workers
    since = scene.now()
    with frozen(scene, "kafka"):
        incident = scene.incident("kafka_unavailable")
        wait_for("the worker notices", lambda: "kafka: " in waits.output(), 30)
        began = time.monotonic()
        status = ends.end()
        ended = time.monotonic() - began
    assert ended < 8 + 5, f"{ended:.1f} s: {ends.output()[-2000:]}"
    assert status in (0, 1), f"it ended by itself, not by SIGKILL: {status}"
    row = scene.row("broker frozen", since, incident, f"SIGTERM meanwhile: {ended:.1f} s")
    no_traceback(waits)
    return row


def valkey_frozen(scene: Scene) -> Row:
    scene.play()
    since = scene.now()
    with frozen(scene, "valkey"):
        incident = scene.incident("redis_unavailable")
        before = scene.counted()
        wait_for("events are counted without it", lambda: scene.counted() > before or scene.keep_going(), DEADLINE)
    row = scene.row("Valkey frozen", since, incident, "counting went on")
    no_traceback(*scene.workers, *scene.managers)
    return row


def answer_doubled(scene: Scene) -> Row:
    """What a pooler that mixes up its sessions does: two answers to one COMMIT."""
    proxy, url = proxied(scene.env["DATABASE_URL"])
    try:
        scene.play(DATABASE_URL=url)
        since = scene.now()
        for _ in range(5):
            proxy.arm("doubled")
            wait_for("an answer is doubled", lambda: not proxy.armed or scene.keep_going(), DEADLINE)
        row = scene.row("two answers to a COMMIT", since, None, f"{proxy.cuts} times, within a retry")
        no_traceback(*scene.workers)
        return row
    finally:
        proxy.close()


def handler_raises_in_update(scene: Scene) -> Row:
    return _handler_raises(scene, "RaisesInUpdate")


def handler_raises_in_combine(scene: Scene) -> Row:
    return _handler_raises(scene, "RaisesInCombine")


def _handler_raises(scene: Scene, handler: str) -> Row:
    """For one record of one partition, outside of decode: it becomes a failed range, and a replay finds the record."""
    at = FIRST // PARTITIONS + 1500
    scene.env |= {"BATCH_HANDLER": f"tests.support.handlers.{handler}", "FAIL_AT": f"1:{at}"}
    since = scene.now()
    scene.play()
    incident = scene.incident("failed_ranges")
    since = max(since, incident.began_at)
    scene.closed(incident)
    for worker in scene.workers:
        assert worker.process.poll() is None, worker.output()
    letter = DeadLetter.objects.get(checkpoint__in=scene.rows(), error_code="handler_failed")
    assert letter.offset == at
    scene.env["FAIL_AT"] = ""
    scene.finish()
    more = ("--group", scene.group, "--id", str(letter.pk), "--requeue", "--execute", "--reason", "mended")
    assert manage_json(scene.env, "dead_letters", *more)["changed"] == 1
    return scene.row(f"{handler} on one record", since, incident, "bisected by the replay; requeued")


ROWS: Sequence[Callable[[Scene], Row]] = (
    database_read_only,
    session_ended_while_idle,
    connection_half_open,
    broker_frozen,
    valkey_frozen,
    answer_doubled,
    handler_raises_in_update,
    handler_raises_in_combine,
)
