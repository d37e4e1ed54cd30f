"""A trainer that learns nothing and keeps the contract of the real one, with the faults that `plan.json` asks for.

Loss and log are functions of the step, so a job that was disturbed must end like one that was not.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

folder = Path(sys.argv[1])
plan = {"steps": 5, "step_s": 0.0, "checkpoint_every": 3} | json.loads((folder / "plan.json").read_text())
is_asked_to_end = False


def ask(*_: object) -> None:
    global is_asked_to_end
    is_asked_to_end = True


def write_whole(path: Path, content: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(content)
    part.replace(path)


def metrics_of(step: int) -> dict:
    return {
        "kind": "step", "step": step, "total_steps": plan["steps"], "epoch": 0, "loss": 1 / step, "learning_rate": 0.1,
        "gradient_norm": 1.0, "tokens": 9, "duration_s": 0.1,
    }  # fmt: skip


def result_of(steps: int) -> dict:
    answered = {"rows": 9, "loss": 1 / steps}
    return {
        "steps": steps, "best_step": steps, "stopped_early": False, "train_loss": 1 / steps,
        "validation_loss": 1 / steps, "zero_shot": answered, "few_shot": answered, "tuned": answered,
        "weights_digest": "0" * 64,
    }  # fmt: skip


def train() -> int:
    checkpoint, metrics = folder / "checkpoint.json", folder / "metrics.jsonl"
    done = json.loads(checkpoint.read_text()) if checkpoint.exists() else 0
    lines = metrics.read_text().splitlines(keepends=True) if metrics.exists() else []
    kept = [line for line in lines if line.endswith("\n")]
    write_whole(metrics, "".join(kept[:done]))
    with metrics.open("a") as file:
        for step in range(done + 1, plan["steps"] + 1):
            time.sleep(plan["step_s"])
            file.write(json.dumps(metrics_of(step)) + "\n")
            file.flush()
            print(f"step {step}", flush=True)  # noqa: T201  # its log
            fault = folder / f"crash-{step}"
            if step in plan.get("crash_at", []) and not fault.exists():
                fault.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if step % plan["checkpoint_every"] == 0 or is_asked_to_end:
                write_whole(checkpoint, json.dumps(step))
            if is_asked_to_end:
                return 3
    write_whole(folder / "result.json", json.dumps(result_of(plan["steps"])))
    return 0


def main() -> int:
    if plan.get("ignores_sigterm"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, ask)
    if plan.get("worker"):  # in a session of its own, as torchrun's are
        subprocess.Popen(["/bin/sleep", "600"], start_new_session=True)
    (folder / "is-up").touch()
    if "error" in plan:
        (folder / "error.json").write_text(json.dumps(plan["error"]) + "\n")
        return plan.get("exit", 2)
    if "exit" in plan:
        return plan["exit"]
    return train()


if __name__ == "__main__":
    sys.exit(main())
