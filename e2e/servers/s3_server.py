"""An S3 server on a folder, which takes one pair of keys and refuses every other."""

import secrets
from pathlib import Path

from servers.java import Process, jars, java
from studio_process import free_ports

_HERE = Path(__file__).with_name("s3")
BUCKET = "hunmin"
_SETTINGS = """
s3proxy.endpoint=http://127.0.0.1:{port}
s3proxy.authorization=aws-v2-or-v4
s3proxy.identity={key}
s3proxy.credential={secret}
jclouds.provider=filesystem-nio2
jclouds.filesystem.basedir={folder}/data
jclouds.identity=unused
jclouds.credential=unused
"""


class S3Server:
    """A server whose files lie in `folder`, with one bucket."""

    def __init__(self, folder: Path) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.key, self.secret = "hunmin", secrets.token_urlsafe(24)
        (folder / "data" / BUCKET).mkdir(parents=True, exist_ok=True)
        settings = folder / "s3.properties"
        settings.write_text(_SETTINGS.format(port=port, key=self.key, secret=self.secret, folder=folder))
        log = f"-Dlogback.configurationFile={_HERE / 'logback.xml'}"
        arguments = ("--properties", str(settings))
        command = java(jars(_HERE / "pom.xml"), "org.gaul.s3proxy.Main", *arguments, heap_mb=128, options=[log])
        self._process = Process(command, port=port, log=folder / "s3.log")

    @property
    def environ(self) -> dict[str, str]:
        """What tests read."""
        return {"TEST_S3": self.url.replace("://", f"://{self.key}:{self.secret}@") + f"/{BUCKET}"}

    def start(self, *, wait: bool = True) -> None:
        """Start it."""
        self._process.start(wait=wait)

    def wait(self) -> None:
        """Return once it answers."""
        self._process.wait()

    def stop(self) -> None:
        """End it."""
        self._process.stop()
