"""Services in processes of their own, as `hunmin run` starts them: for what happens when one is killed."""

import asyncio
import os
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from hunmin_kit.run.server import bind
from hunmin_kit.run.settings import service_prefix

_PROGRAM = (sys.executable, "-c", "from hunmin_command import main; main()", "run")
_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 30


@dataclass(frozen=True)
class ServiceProcess:
    """A service that is up, until it is killed."""

    url: str
    log: Path
    process: Process

    async def kill(self) -> None:
        """End it as nothing else does: at once, wherever it is."""
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def service_process(name: str, environ: Mapping[str, str], log: Path) -> AsyncGenerator[ServiceProcess, None]:
    """Run a service with these settings, and none of our own, as long as the block lasts; its output goes to `log`.

    One that was not killed in it ends by itself when it is asked to, or the block fails.
    """
    with bind("127.0.0.1", 0, variable="") as taken:
        port = taken.getsockname()[1]
    others = {variable: value for variable, value in os.environ.items() if not variable.startswith("HUNMIN_")}
    settings = others | dict(environ) | {f"{service_prefix(name)}PORT": str(port)}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(*_PROGRAM, name, env=settings, stdout=output, stderr=output)
    up = ServiceProcess(f"http://127.0.0.1:{port}", log, process)
    try:
        await _ready(up)
        yield up
    finally:
        was_killed = process.returncode is not None
        if not was_killed:
            process.terminate()
        code = await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
    if not was_killed and code != 0:
        raise AssertionError(f"{name} ended with {code}: see {log}")


async def _ready(up: ServiceProcess) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    async with httpx.AsyncClient(base_url=up.url, trust_env=False) as http:
        while True:
            try:
                if (await http.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline or up.process.returncode is not None:
                raise AssertionError(f"it does not start: see {up.log}")
            await asyncio.sleep(0.1)
