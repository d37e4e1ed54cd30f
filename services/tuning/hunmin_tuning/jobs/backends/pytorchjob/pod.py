"""What a worker's pod runs around the trainer, since it shares no disk with anybody.

It fetches the job's folder, starts the trainer on it, and in the first worker's pod keeps the copy in the blob store up
to what the trainer writes. Its exit status tells the operator whether to make the pod anew (128 and more) or to end
the job; how the trainer ended is told to the service by the copy.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from hunmin_contracts.errors import HunminError
from hunmin_contracts.ids import JobId
from hunmin_kit.blobs import open_blobs

from hunmin_tuning.jobs.backends.backend import LOG
from hunmin_tuning.jobs.backends.pytorchjob.mirror import CHECKPOINT, Index, Mirror
from hunmin_tuning.trainer.job import JobFolder

_SUCCEEDED, _WRONG, _INTERRUPTED = 0, 2, 3  # the trainer's
_ENDED, _AGAIN = 128 + signal.SIGTERM, 128 + signal.SIGUSR1  # ours: both have the pod made anew
_PERMANENT = 127


class Pod:
    """One worker of the job, and whether it is the first or the only one."""

    def __init__(self, mirror: Mirror, folder: Path, *, rank: int, workers: int, restarts: int, every_s: float) -> None:
        self._mirror = mirror
        self._folder = folder
        self._is_first = rank == 0
        self._is_alone = workers == 1
        self._restarts = restarts
        self._every_s = every_s
        self._is_asked_to_end = False
        self._trainer: asyncio.subprocess.Process | None = None
        self._index = Index()

    def ask_to_end(self) -> None:
        """Have the trainer leave a checkpoint and end."""
        self._is_asked_to_end = True
        if self._trainer is not None and self._trainer.returncode is None:
            self._trainer.terminate()

    async def run(self, command: Sequence[str]) -> int:
        """Do this worker's part of the job; return the pod's exit status."""
        self._index = await self._mirror.pull(leave=None if self._is_first else CHECKPOINT)
        if self._is_asked_to_end:
            return _ENDED
        starts = self._index.starts
        if self._is_first:
            if starts > self._restarts:  # something that leaves no time for a last word, such as the limit of memory
                print(f"the trainer was lost {starts} times: see what ended its pods", file=sys.stderr)  # noqa: T201
                return 1
            await self._push(starts=starts + 1, exit_code=None)
        code = await self._train(command)
        if code != _SUCCEEDED and JobFolder(self._folder).error.exists():
            code = _WRONG  # torchrun ends with 1 for it
        if self._is_first:
            await self._push(starts=starts if code == _INTERRUPTED else starts + 1, exit_code=code)
        return self._status(code, is_last=starts >= self._restarts)

    def _status(self, code: int, *, is_last: bool) -> int:
        if self._is_asked_to_end:
            return _ENDED
        if self._is_alone:
            return min(code, _PERMANENT)
        if code in (_SUCCEEDED, _WRONG):
            return code if self._is_first else 0  # the first one's word decides
        if self._is_first and is_last and code != _INTERRUPTED:
            return min(code, _PERMANENT)
        return _AGAIN  # lost another worker or was told by it to end, or is what the others have lost

    async def _train(self, command: Sequence[str]) -> int:
        log = self._folder / LOG
        with log.open("ab") as output, log.open("rb") as shown:
            shown.seek(0, os.SEEK_END)
            self._trainer = await asyncio.create_subprocess_exec(
                *command, str(self._folder), stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
            )
            if self._is_asked_to_end:
                self._trainer.terminate()
            ended = asyncio.create_task(self._trainer.wait())
            while not (await asyncio.wait({ended}, timeout=self._every_s))[0]:
                _show(shown)
                if self._is_first:
                    await self._push_if_reached()
            _show(shown)
        code = ended.result()
        return code if code >= 0 else 128 - code  # as a shell counts

    async def _push_if_reached(self) -> None:
        try:
            await self._push()
        except HunminError as error:  # the training goes on; the last push must be
            print(f"not copied yet: {error.message}", file=sys.stderr)  # noqa: T201

    async def _push(self, **changes: object) -> None:
        self._index = await self._mirror.push(self._index.model_copy(update=changes))


def _show(log: BinaryIO) -> None:
    """Pass on to `kubectl logs` what the trainer has written since."""
    sys.stdout.buffer.write(log.read())
    sys.stdout.buffer.flush()


async def main(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    """Run one worker; return its exit status."""
    blobs = open_blobs(arguments.blobs, home=arguments.folder)
    mirror = Mirror(blobs, JobId(arguments.job), arguments.folder, patience_s=arguments.patience)
    pod = Pod(
        mirror,
        arguments.folder,
        rank=int(os.environ["RANK"]),  # of the pod: the operator's
        workers=int(os.environ["PET_NNODES"]),
        restarts=arguments.restarts,
        every_s=arguments.every,
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, pod.ask_to_end)
    return await pod.run(command)


def _arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", required=True)
    parser.add_argument("--blobs", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--every", type=float, required=True)
    parser.add_argument("--restarts", type=int, required=True)
    parser.add_argument("--patience", type=float, required=True)
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    return arguments, arguments.command


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*_arguments())))
