"""Runs schemathesis on a service that is up: thousands of requests made from its OpenAPI file, every answer checked.

It runs in a process of its own, by its command, so that the service keeps the loop of the test. What it does is the
same each time. `make fuzz` does what a test has no time for: `FUZZ_PHASES` adds every bound and type of every schema
(`coverage`), `FUZZ_EXAMPLES` is how many requests each operation gets, and `FUZZ_SEED` makes them others.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EXAMPLES = 3
PHASES = "fuzzing,stateful"
_HOOKS = Path(__file__).with_name("fuzz_hooks.py")
_PLAN = "FUZZ_PLAN"


@dataclass(frozen=True, kw_only=True)
class FuzzPlan:
    """What a file cannot say of a service. Every exception has its reason.

    `known`: values that exist, by the name of a field or parameter; half of the valid requests have one of them.
    `spared`: values that no path is to name, such as the caller's own key: it would have to be made anew.
    `bounds`: numbers that are cut to what a test has time for, by the name of a field.
    `refusals`: what a valid request may be refused for, as a part of the answer's text, and why no schema says so.
    `unchecked`: checks that are left out, by operation (`POST /v1/jobs`) or, as `*`, everywhere, and why.
    `untested`: operations that are left out, and why.
    """

    known: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    spared: Sequence[str] = ()
    bounds: Mapping[str, int] = field(default_factory=dict)
    refusals: Mapping[str, str] = field(default_factory=dict)
    unchecked: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    untested: Mapping[str, str] = field(default_factory=dict)


async def fuzz(url: str, plan: FuzzPlan, folder: Path, *, headers: Mapping[str, str] | None = None) -> None:
    """Fail with schemathesis's own report unless every answer of the service at `url` is what its file says."""
    config = folder / "schemathesis.toml"
    config.write_text(_configuration(plan))
    values = {"known": plan.known, "spared": plan.spared, "bounds": plan.bounds, "refusals": list(plan.refusals)}
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        f"--config-file={config}",
        "run",
        f"{url}/openapi.json",
        f"--max-examples={os.environ.get('FUZZ_EXAMPLES', EXAMPLES)}",
        f"--seed={os.environ.get('FUZZ_SEED', 1)}",
        "--generation-database=none",
        "--suppress-health-check=all",  # of hypothesis: how slow a busy machine is says nothing of the service
        "--no-color",
        "--request-timeout=120",  # a machine may be busy
        "--warnings=off",
        f"--phases={os.environ.get('FUZZ_PHASES', PHASES)}",
    ]
    for name, value in (headers or {}).items():
        command += ["--header", f"{name}: {value}"]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(_HOOKS), _PLAN: json.dumps(values)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, output.decode(errors="replace")  # noqa: S101  # it is a test's own


def _configuration(plan: FuzzPlan) -> str:
    lines = ["max-stream-events = 1  # a stream may be endless\n"]
    lines += [f"[checks]\n{_off(plan.unchecked.get('*', {}))}"]
    for operation in plan.untested:
        lines.append(f"[[operations]]\ninclude-name = {json.dumps(operation)}\nenabled = false\n")
    for operation, checks in plan.unchecked.items():
        if operation != "*":
            lines.append(f"[[operations]]\ninclude-name = {json.dumps(operation)}\n[operations.checks]\n{_off(checks)}")
    return "\n".join(lines)


def _off(checks: Mapping[str, str]) -> str:
    return "".join(f"{check}.enabled = false  # {reason}\n" for check, reason in checks.items())
