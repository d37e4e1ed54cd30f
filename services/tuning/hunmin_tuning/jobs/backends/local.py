"""Jobs as processes of this machine, each in a session of its own.

Every process of a job carries the job's folder in its environment, which children inherit. So any of them is found, a
worker in another session or an orphan of a service that was killed as well, and never mistaken for another process
that was given its number.
"""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from hunmin_contracts.ids import JobId

from hunmin_tuning.jobs.backends.backend import LOG, Gone, Running, Status

MARK = "HUNMIN_TUNING_JOB_FOLDER"
_PID, _EXIT = "process.pid", "process.exit"
_POLL_S = 0.05
_EXECUTION_S = 0.0005
# The shell outlives the trainer, whatever kills it, and writes down how it ended: whoever asks may not be its parent.
# SIGTERM to the group is for the trainer: a trap, unlike an ignored signal, is not inherited.
_SHELL = 'trap : TERM; exit=$1; shift; "$@"; echo $? > "$exit.part"; mv "$exit.part" "$exit"'


class LocalBackend:
    """See JobBackend. The trainer is `command` with the folder behind it."""

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str], grace_s: float = 30.0) -> None:
        """Give processes this `environment`, less what configures this service: its secrets are not theirs."""
        self._command = tuple(command)
        self._environment = {name: value for name, value in environment.items() if not name.startswith("HUNMIN_")}
        self._grace_s = grace_s
        self._children: dict[Path, subprocess.Popen[bytes]] = {}  # of this process; others' are there too

    async def start(self, job_id: JobId, folder: Path) -> None:
        """See JobBackend."""
        await self.stop(job_id, folder)
        self._spawn(folder)  # not awaited: nothing can come between a process and the note of its number

    async def poll(self, job_id: JobId, folder: Path) -> Status:
        """See JobBackend."""
        self._reap(folder)
        if (pid := _number(folder / _PID)) is None:
            # Whoever started it was killed before it could note the number, or it was never started.
            pid = next((process.pid for process in await asyncio.to_thread(_processes, folder)), None)
        if pid is not None and _belongs(pid, folder):
            return Running()
        return Gone(_number(folder / _EXIT))  # written before the shell ended

    async def stop(self, job_id: JobId, folder: Path) -> None:
        """See JobBackend."""
        processes = await asyncio.to_thread(_processes, folder)
        if isinstance(await self.poll(job_id, folder), Running):
            _signal_groups(processes, signal.SIGTERM)
            deadline = asyncio.get_running_loop().time() + self._grace_s
            while isinstance(await self.poll(job_id, folder), Running):
                if asyncio.get_running_loop().time() > deadline:
                    break
                await asyncio.sleep(_POLL_S)
        empty = 0
        while empty < 2:  # a process that is just being executed has no environment for a moment
            processes = await asyncio.to_thread(_processes, folder)
            _signal_groups(processes, signal.SIGKILL)
            empty = 0 if processes else empty + 1
            await asyncio.sleep(_POLL_S)
        if (child := self._children.pop(folder, None)) is not None:
            await asyncio.to_thread(child.wait)  # it has lost its environment already, but may not be a zombie yet

    async def forget(self, job_id: JobId, folder: Path) -> None:
        """See JobBackend: it keeps nothing elsewhere."""

    def _spawn(self, folder: Path) -> None:
        (folder / _PID).unlink(missing_ok=True)
        (folder / _EXIT).unlink(missing_ok=True)
        with (folder / LOG).open("ab") as log:
            child = subprocess.Popen(  # noqa: S603  # the command is the operator's
                ["/bin/sh", "-c", _SHELL, "sh", str(folder / _EXIT), *self._command, str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self._environment, MARK: str(folder)},
                start_new_session=True,
            )
        self._children[folder] = child
        while child.poll() is None and not _belongs(child.pid, folder):
            time.sleep(_EXECUTION_S)  # Popen returns a moment before its environment can be read
        part = folder / f"{_PID}.part"
        part.write_text(f"{child.pid}\n")
        part.replace(folder / _PID)

    def _reap(self, folder: Path) -> None:
        child = self._children.get(folder)
        if child is not None and child.poll() is not None:
            del self._children[folder]


def _processes(folder: Path) -> list[psutil.Process]:
    """Return every process of the job, parents first."""
    return [process for process in psutil.process_iter() if _is_marked(process, folder)]


def _belongs(pid: int, folder: Path) -> bool:
    try:
        return _is_marked(psutil.Process(pid), folder)
    except psutil.NoSuchProcess:
        return False


def _is_marked(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == str(folder)
    except psutil.Error:  # it has ended by now, or is another user's
        return False


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except FileNotFoundError:
        return None


def _signal_groups(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    """Signal the groups of these processes, each once: a whole group at once cannot fork itself out of reach."""
    signalled: set[int] = set()
    for process in processes:
        try:
            group = os.getpgid(process.pid)
            if group not in signalled and process.is_running():
                signalled.add(group)
                os.killpg(group, number)
        except ProcessLookupError:
            continue
