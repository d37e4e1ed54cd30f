"""A Kafka broker of one node (KRaft) on a folder of its own."""

import subprocess
from pathlib import Path

from servers.java import Process, jars, java
from studio_process import free_ports

_HERE = Path(__file__).with_name("kafka")
_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
USER, PASSWORD = "hunmin", "hunmin-test"
_CLUSTER = "MkU3OEVBNTcwNTJENDM2Qg"
# One replica of everything, since there is one broker; topics are declared (`hunmin topics`), never made by a typo.
_SETTINGS = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},KNOWN://127.0.0.1:{known},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},KNOWN://127.0.0.1:{known}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,KNOWN:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
listener.name.known.sasl.enabled.mechanisms=PLAIN
listener.name.known.plain.sasl.jaas.config={login} required user_{user}="{password}";
log.dirs={folder}/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=2
"""


def _settings(**values: object) -> str:
    return _SETTINGS.format(**values, login=_LOGIN, user=USER, password=PASSWORD)


class KafkaBroker:
    """A broker whose files lie in `folder`. `servers` is what HUNMIN_KAFKA_SERVERS names.

    `known` is another address of it, for clients that say who they are: USER with PASSWORD, by the mechanism PLAIN.
    """

    def __init__(self, folder: Path) -> None:
        port, known, controller = free_ports(3)
        self.servers, self.known = f"127.0.0.1:{port}", f"127.0.0.1:{known}"
        folder.mkdir(parents=True, exist_ok=True)
        self._settings = folder / "server.properties"
        self._settings.write_text(_settings(port=port, known=known, controller=controller, folder=folder))
        self._jars = jars(_HERE / "pom.xml")
        self._format()
        self._process = Process(self._java("kafka.Kafka"), port=port, log=folder / "broker.log")

    @property
    def environ(self) -> dict[str, str]:
        """What tests read."""
        return {"TEST_KAFKA": self.servers, "TEST_KAFKA_KNOWN": f"{USER}:{PASSWORD}@{self.known}"}

    def start(self, *, wait: bool = True) -> None:
        """Start it, for the first time or again."""
        self._process.start(wait=wait)

    def wait(self) -> None:
        """Return once it answers."""
        self._process.wait()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def stop(self) -> None:
        """End it in order."""
        self._process.stop()

    def _format(self) -> None:
        command = self._java("kafka.tools.StorageTool", "format", "-t", _CLUSTER, "--ignore-formatted", "-c")
        subprocess.run([*command, str(self._settings)], check=True, stdout=subprocess.DEVNULL)

    def _java(self, main: str, *arguments: str) -> list[str]:
        arguments = arguments or (str(self._settings),)
        log = f"-Dlog4j2.configurationFile={_HERE / 'log4j2.xml'}"
        return java(self._jars, main, *arguments, heap_mb=256, options=[log])
