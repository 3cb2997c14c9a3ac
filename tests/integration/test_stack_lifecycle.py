"""The real services: up, status, down, up again with their data, and after every kind of end."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from streamsocial.environment import BASE_DIR
from streamsocial.stack import Stack, StackError, accounts, ports
from streamsocial.stack.processes import Identity

ALL = ("kafka", "postgres", "valkey")
TOPIC = "kept"


@pytest.fixture(scope="module")
def one(run_folder: Path) -> Iterator[Stack]:
    """A stack beside the one of the run, so that what is done to it disturbs nobody."""
    stack = Stack(run_folder / "lifecycle", environ={}, usual_ports=False)
    stack.up()
    yield stack
    stack.down(immediate=True)


@pytest.fixture
def up(one: Stack) -> Stack:
    one.up()
    return one


def _leave_data(stack: Stack) -> None:
    values = stack.plan()
    admin = AdminClient({"bootstrap.servers": values["KAFKA_BOOTSTRAP_SERVERS"]})
    if TOPIC not in admin.list_topics(timeout=10).topics:
        admin.create_topics([NewTopic(TOPIC, 1)])[TOPIC].result(10)
    producer = Producer({"bootstrap.servers": values["KAFKA_BOOTSTRAP_SERVERS"], "acks": "all"})
    producer.produce(TOPIC, b"event")
    assert producer.flush(10) == 0
    with psycopg.connect(values["DATABASE_URL"]) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (n integer)")
        connection.execute("INSERT INTO kept VALUES (1)")
    with redis.Redis.from_url(values["REDIS_URL"]) as client:
        client.incr("kept")


def _data(stack: Stack) -> tuple[int, int, int]:
    values = stack.plan()
    consumer = Consumer(
        {"bootstrap.servers": values["KAFKA_BOOTSTRAP_SERVERS"], "group.id": "look", "logger": _quiet()}
    )
    try:
        _, records = consumer.get_watermark_offsets(TopicPartition(TOPIC, 0), timeout=10)
    finally:
        consumer.close()
    with psycopg.connect(values["DATABASE_URL"]) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
        assert row is not None
    with redis.Redis.from_url(values["REDIS_URL"]) as client:
        return records, row[0], int(client.get("kept") or 0)


def _quiet() -> object:
    import logging

    return logging.getLogger("tests.quiet")


def _processes(stack: Stack) -> list[int]:
    root = str(stack.directory.root)
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(root in word for word in process.info["cmdline"] or [])
    ]


def test_up_again_says_so_quickly_and_starts_nothing(up: Stack) -> None:
    before = up.status()
    began = time.monotonic()
    again = up.up()
    assert time.monotonic() - began < 2
    assert again.started == ()
    assert again.services == before.services


def test_data_survives_down_and_up_on_the_same_ports(up: Stack) -> None:
    _leave_data(up)
    before, values = _data(up), up.plan()
    assert set(up.down()) == set(ALL)
    assert {service.state for service in up.status().services} == {"stopped"}
    assert _processes(up) == []
    assert up.down() == ()
    assert set(up.up().started) == set(ALL)
    assert up.plan() == values
    assert _data(up) == before


@pytest.mark.parametrize("name", ALL)
def test_a_killed_service_is_healed_by_up_and_the_others_run_on(up: Stack, name: str) -> None:
    _leave_data(up)
    kafka_before, postgres_before, valkey_before = _data(up)
    if name == "valkey":
        time.sleep(1.5)  # its log is written to disk every second
    before = up.status()
    up.kill_service(name)
    assert up.status()[name].state == "stopped"
    assert not up.status().ok
    after = up.up()
    assert after.started == (name,)
    assert all(after[other] == before[other] for other in ALL if other != name)
    assert _data(up) == (kafka_before, postgres_before, valkey_before)


def test_a_session_that_outlives_a_killed_postgres_does_not_keep_it_down(up: Stack) -> None:
    with psycopg.connect(up.plan()["DATABASE_URL"]) as connection:
        session = connection.info.backend_pid
        os.kill(session, signal.SIGSTOP)
        up.kill_service("postgres")
        assert psutil.pid_exists(session)
        assert up.up().started == ("postgres",)
        assert Identity.of(session) is None
        connection.close()


def test_a_service_that_does_not_answer_is_started_again(up: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamsocial.stack.supervisor._ANSWER_SECONDS", 1)
    pid = up.status()["valkey"].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    assert up.status()["valkey"].state == "unresponsive"
    assert up.up().started == ("valkey",)


@pytest.mark.parametrize("immediate", [False, True])
def test_one_service_can_be_restarted(up: Stack, immediate: bool) -> None:
    before = up.status()
    up.restart_service("postgres", immediate=immediate)
    after = up.status()
    assert after.ok
    assert after["postgres"].pid != before["postgres"].pid
    assert after["kafka"] == before["kafka"]


def test_a_starter_killed_before_it_could_write_the_process_down_loses_nothing(up: Stack) -> None:
    before = up.status()
    for name in ALL:
        (up.directory.root / name / "process.json").unlink()
    assert Stack(up.directory.root, environ={}, usual_ports=False).status().services == before.services
    assert up.up().started == ()


def test_down_stops_no_process_that_only_has_the_id(up: Stack) -> None:
    up.down(only=["valkey"])
    me = Identity.of(os.getpid())
    assert me is not None
    (up.directory.root / "valkey" / "process.json").write_text(json.dumps({"pid": me.pid, "created": me.created - 99}))
    assert up.down(only=["valkey"]) == ()


def test_a_port_that_was_taken_meanwhile_is_replaced(up: Stack) -> None:
    _leave_data(up)
    before, values = _data(up), up.plan()
    up.down()
    taken = [up.directory.load().ports[name] for name in ("kafka", "controller", "postgres", "valkey")]
    sockets = [socket.create_server((ports.LOOPBACK, port)) for port in taken]
    try:
        assert up.up().ok
        assert up.plan()["DATABASE_URL"] != values["DATABASE_URL"]
        assert not set(taken) & set(up.directory.load().ports.values())
        assert _data(up) == before
    finally:
        for taken_socket in sockets:
            taken_socket.close()


def test_a_users_service_is_not_started(run_folder: Path) -> None:
    theirs = {"KAFKA_BOOTSTRAP_SERVERS": "broker.example:9092", "DATABASE_URL": "postgresql://db.example/mine"}
    stack = Stack(run_folder / "users", environ=theirs, usual_ports=False)
    try:
        status = stack.up()
        assert status.started == ("valkey",)
        assert [status[name].state for name in ALL] == ["yours", "yours", "running"]
        with pytest.raises(StackError, match="yours"):
            stack.restart_service("kafka")
    finally:
        stack.down(immediate=True)


def test_passwords_are_needed(up: Stack) -> None:
    port = up.directory.load().ports
    with pytest.raises(redis.AuthenticationError), redis.Redis(port=port["valkey"]) as client:
        client.ping()
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(host=ports.LOOPBACK, port=port["postgres"], user="streamsocial", password="guess")


def test_the_applications_role_is_no_superuser_and_durability_is_on(up: Stack) -> None:
    with psycopg.connect(up.plan()["DATABASE_URL"]) as connection:
        row = connection.execute(
            "SELECT rolsuper, rolcreatedb, current_setting('synchronous_commit'), current_setting('fsync') "
            "FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
    assert row == (False, True, "on", "on")


def test_two_commands_at_once_start_each_service_once(up: Stack) -> None:
    up.down()
    command = [sys.executable, "-c", _UP, str(up.directory.root)]
    both = [subprocess.Popen(command, cwd=BASE_DIR, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    started = [process.communicate(timeout=120)[0].split() for process in both]
    assert sorted(name for names in started for name in names) == sorted(ALL)
    assert len(_processes(up)) == len(ALL)


_UP = (
    "import sys; from pathlib import Path; from streamsocial.stack import Stack; "
    "print(*Stack(Path(sys.argv[1]), environ={}, usual_ports=False).up().started)"
)


def test_ctrl_c_in_the_starters_terminal_does_not_reach_the_services(up: Stack) -> None:
    pids = [service.pid for service in up.status().services]
    assert all(pid is not None and os.getsid(pid) == pid for pid in pids)


def test_a_damaged_postgres_folder_shows_the_log_and_the_way_out(up: Stack) -> None:
    up.down()
    (up.directory.root / "postgres" / "data" / "global" / "pg_control").write_bytes(b"")
    with pytest.raises(StackError, match=r"(?s)PostgreSQL exited while starting.*pg_control.*stack up --wipe"):
        up.up()
    assert [up.status()[name].state for name in ALL] == ["running", "stopped", "running"]
    assert set(up.up(wipe=True).started) == set(ALL)


def test_a_damaged_kafka_folder_shows_the_log_and_the_way_out(up: Stack) -> None:
    up.down()
    (up.directory.root / "kafka" / "data" / "meta.properties").write_text("version=1\n")
    with pytest.raises(StackError, match=r"(?s)Apache Kafka exited while starting.*meta\.properties.*stack up --wipe"):
        up.up()
    assert set(up.up(wipe=True).started) == set(ALL)


def test_wipe_starts_afresh(up: Stack) -> None:
    _leave_data(up)
    assert set(up.up(wipe=True).started) == set(ALL)
    values = up.plan()
    topics = AdminClient({"bootstrap.servers": values["KAFKA_BOOTSTRAP_SERVERS"]}).list_topics(timeout=10).topics
    assert TOPIC not in topics
    with psycopg.connect(values["DATABASE_URL"]) as connection:
        assert connection.execute("SELECT to_regclass('kept')").fetchone() == (None,)


def test_kafkas_own_consumer_groups_tool_runs(up: Stack) -> None:
    from streamsocial.stack.kafka import Kafka

    kafka = Kafka(up.directory, up.directory.load())
    done = subprocess.run(kafka.consumer_groups_command("--list"), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
class TestRootWithoutUserNamespaces:
    """As in a container that forbids `unshare --user`."""

    @pytest.fixture(autouse=True)
    def _forbidden(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(accounts, "_namespace_prefix", lambda uid, gid: ())

    def test_postgres_runs_as_nobody(self, run_folder: Path) -> None:
        run_folder.chmod(0o711)
        theirs = {"KAFKA_BOOTSTRAP_SERVERS": "broker.example:9092", "REDIS_URL": "redis://cache.example"}
        stack = Stack(run_folder / "nobody", environ=theirs, usual_ports=False)
        try:
            status = stack.up()
            assert psutil.Process(status["postgres"].pid).username() == "nobody"
            assert set(stack.down()) == {"postgres"}
            assert stack.up().started == ("postgres",)
        finally:
            stack.down(immediate=True)

    def test_a_folder_that_nobody_cannot_enter_is_told(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o700)
        theirs = {"KAFKA_BOOTSTRAP_SERVERS": "broker.example:9092", "REDIS_URL": "redis://cache.example"}
        with pytest.raises(StackError, match="cannot pass through"):
            Stack(tmp_path / "stack", environ=theirs, usual_ports=False).up()
