"""A second broker for the stack's cluster: what it alone holds has no leader once it is stopped."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from streamsocial.stack import ports
from streamsocial.stack.kafka import Kafka
from streamsocial.stack.report import Silent
from streamsocial.stack.state import write_private
from streamsocial.stack.supervisor import Stack

NODE_ID = 2


class SecondBroker(Kafka):
    """Only a broker; the controller is that of the stack."""

    name = "second-broker"
    title = "a second Kafka broker"

    @property
    def port(self) -> int:
        return self.state.ports["second-broker"]

    def _properties(self, data: object) -> str:
        controller = self.state.ports["controller"]
        changed = {
            "process.roles": "broker",
            "node.id": str(NODE_ID),
            "listeners": f"PLAINTEXT://{self.address}",
            "controller.quorum.bootstrap.servers": f"{ports.LOOPBACK}:{controller}",
            "log.dirs": str(data),
        }
        kept = [line for line in super()._properties(self.data).splitlines() if line.partition("=")[0] not in changed]
        return "\n".join([*kept, *(f"{key}={value}" for key, value in changed.items())]) + "\n"

    def _format(self) -> None:
        meta = (self.home.parent / "kafka" / "data" / "meta.properties").read_text()
        cluster = next(line.partition("=")[2] for line in meta.splitlines() if line.startswith("cluster.id="))
        properties = self.home / "format.properties"
        write_private(properties, self._properties(self.data))
        command = [*self._virtual_machine(), "kafka.tools.StorageTool", "format"]
        done = subprocess.run(
            [*command, "--cluster-id", cluster, "--config", str(properties)],
            capture_output=True,
            text=True,
            env=self.environ(),
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def second_broker(stack: Stack) -> Iterator[SecondBroker]:
    """Not started yet; stopped and removed at the end."""
    state = stack.directory.load()
    state.ports["second-broker"] = ports.choose((), set(state.ports.values()))
    broker = SecondBroker(stack.directory, state)
    try:
        yield broker
    finally:
        broker.stop(immediate=True)
        shutil.rmtree(broker.home, ignore_errors=True)


def start(broker: SecondBroker) -> None:
    broker.start(Silent())
