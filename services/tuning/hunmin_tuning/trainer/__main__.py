"""`python -m hunmin_tuning.trainer FOLDER`, or the same under torchrun. The exit status says how it ended.

0: `result.json` is there; 2: the job itself is wrong, `error.json` says why; 3: interrupted by SIGTERM, to be started
again; anything else: a crash. Under torchrun, which ends with 1 for all of them, the files tell.
"""

import signal
import sys
import threading
from pathlib import Path

from hunmin_contracts.errors import HunminError

from hunmin_tuning.trainer.job import JobFolder
from hunmin_tuning.trainer.run import run_job
from hunmin_tuning.trainer.training import Interrupted
from hunmin_tuning.trainer.workers import Workers

SUCCEEDED, WRONG, INTERRUPTED = 0, 2, 3


def main(folder: Path) -> int:
    """Do the job in `folder` and return the exit status."""
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    files = JobFolder(folder)
    if files.result.exists():
        return SUCCEEDED
    workers = Workers()
    try:
        run_job(files, workers, asked.is_set)
    except HunminError as error:
        if workers.is_first:
            files.write_error(error)
        return WRONG
    except Interrupted:
        return INTERRUPTED
    finally:
        workers.close()
    return SUCCEEDED


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
