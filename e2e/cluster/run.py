"""Tests the studio that e2e/cluster/install.py has installed: `python e2e/cluster/run.py [pytest's arguments]`.

First the e2e suite by the gateway's URL, then what is done to the cluster under load; the release is gone in the end.
Arguments choose other tests than these.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from chart.rendering import ROOT
from cluster.kube import RELEASE, SERVICES, forwarded, gateway_url, generated_secrets, new_key, wait_until_ready

KEYCLOAK_PORT = 30180  # as values.yaml has it
# A studio of this machine is what these are about.
ELSEWHERE = ("e2e/test_readme.py", "e2e/test_servers.py", "e2e/test_start.py")
SUITES = (
    ("the e2e suite, by URL", ["e2e", *(f"--ignore={path}" for path in ELSEWHERE)]),
    (
        "the cluster",
        # -rP: what they printed, such as how many requests there were, also where nothing failed.
        [
            "-rP",
            *(f"e2e/cluster/test_{name}.py" for name in ("objects", "studio", "pods", "drain", "upgrade", "uninstall")),
        ],
    ),
)


def environ() -> dict[str, str]:
    """Return the variables that lead the suite to the studio."""
    password = generated_secrets()["keycloak-admin-password"]
    return os.environ | {
        "E2E_URL": gateway_url(),
        "E2E_KEY": new_key(),
        "E2E_MODEL": os.environ.get("E2E_MODEL", "starter"),
        "E2E_REALM": f"http://127.0.0.1:{KEYCLOAK_PORT}/realms/hunmin",
        "E2E_REALM_ADMIN": f"admin:{password}",
    }


def main() -> int:
    """Run the suites one after the other; return the exit code of the first that failed."""
    codes = []
    for service in SERVICES:
        wait_until_ready(service, within_s=600)
    for title, paths in (("what was asked for", sys.argv[1:]),) if sys.argv[1:] else SUITES:
        began = time.monotonic()
        with forwarded(f"service/{RELEASE}-keycloak", port=KEYCLOAK_PORT, to=8080):
            command = [sys.executable, "-m", "pytest", "--timeout", "1200", "--durations", "5", *paths]
            codes.append(subprocess.run(command, cwd=ROOT, env=environ(), check=False).returncode)
        print(f"{title}: {(time.monotonic() - began) / 60:.1f} min", flush=True)
    return next(filter(None, codes), 0)


if __name__ == "__main__":
    sys.exit(main())
