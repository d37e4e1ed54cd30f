"""`make bench-start`: from the command to a studio that answers, on a home that has been used before.

The baseline is the import of torch alone, which a start contains and nobody here can shorten. Alternating, medians.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import Target, report

sys.path.insert(0, str(Path(__file__).parents[1]))
from studio_process import STARTER, StudioProcess, model_environ, new_key

LIMIT_S = 15


def import_of_torch() -> float:
    """Return how many seconds a process takes that only imports torch."""
    begin = time.monotonic()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.monotonic() - begin


def main() -> None:
    """Start the studio again and again, print what it took, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    starts, imports = [], []
    with tempfile.TemporaryDirectory() as home:
        environ = model_environ(STARTER)
        studio = StudioProcess(home=Path(home), key=new_key(), one_process=True, environ=environ)
        studio.start()
        studio.stop()
        for _ in range(rounds):
            imports.append(import_of_torch())
            starts.append(studio.start())
            studio.stop()
    ours, baseline = statistics.median(starts), statistics.median(imports)
    metric = {
        "ours": round(ours, 2),
        "baseline": round(baseline, 2),
        "ratio": round(ours / baseline, 2),
        "unit": "s",
        "longest": round(max(starts), 2),
        "limit": LIMIT_S,
    }
    print("second_start", metric)
    report("start", {"second_start": metric}, [Target("second_start", figure="longest", most=LIMIT_S)])


if __name__ == "__main__":
    main()
