"""One process from start to exit: ports, signals, drain."""

import asyncio
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import structlog

from hunmin_kit.run.hosting import Hosted, hosted
from hunmin_kit.run.plan import Plan
from hunmin_kit.run.server import bind, listening, url_of
from hunmin_kit.run.service import Service
from hunmin_kit.run.settings import service_prefix

_log = structlog.get_logger()


async def run(plan: Plan, opened: list[Service[Any]]) -> None:
    """Run `plan` with a port for each of `opened` until SIGTERM or SIGINT, then drain; a second one exits at once."""
    started = time.monotonic()
    stop = _Stop()
    gc.disable()  # what a start makes stays: looking through it again and again takes a seventh of the time
    with stop.installed():
        listeners = _bind(plan, opened)
        try:
            async with hosted(plan) as up, AsyncExitStack() as ports:
                for name, listener in listeners.items():
                    await ports.enter_async_context(listening(up.apps[name], listener, drain_s=plan.platform.drain_s))
                gc.freeze()
                gc.enable()
                urls = {name: url_of(listener) for name, listener in listeners.items()}
                _log.info("process.ready", urls=urls, start_s=round(time.monotonic() - started, 2))
                await _announce(up, urls)
                await stop.wait()
                up.is_draining = True
                _log.info("process.draining", delay_s=plan.platform.drain_delay_s, grace_s=plan.platform.drain_s)
                await asyncio.sleep(plan.platform.drain_delay_s)
        except asyncio.CancelledError:
            if not stop.is_set():
                raise
        finally:
            for listener in listeners.values():
                listener.close()
    _log.info("process.stopped")


def _bind(plan: Plan, opened: list[Service[Any]]) -> Mapping[str, socket.socket]:
    """Take every port before anything slow starts."""
    listeners = {}
    for service in opened:
        settings = plan.settings[service.name]
        variable = f"{service_prefix(service.name)}PORT"
        listeners[service.name] = bind(settings.host, settings.port, variable=variable)
    return listeners


async def _announce(up: Hosted, urls: Mapping[str, str]) -> None:
    for name, url in urls.items():
        for text in await up.platforms[name].announce(url):
            sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class _Stop:
    """SIGTERM and SIGINT: the first asks for the end, or cancels a start; the second does not wait for it."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._is_waited_for = False
        self._task = asyncio.current_task()

    def installed(self) -> "_Installed":
        return _Installed(self)

    def is_set(self) -> bool:
        return self._event.is_set()

    async def wait(self) -> None:
        self._is_waited_for = True
        await self._event.wait()

    def on_signal(self) -> None:
        if self._event.is_set():
            os._exit(1)
        self._event.set()
        if not self._is_waited_for and self._task is not None:
            self._task.cancel()


class _Installed:
    def __init__(self, stop: _Stop) -> None:
        self._stop = stop

    def __enter__(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.on_signal)

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)
