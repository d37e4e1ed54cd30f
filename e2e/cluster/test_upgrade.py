"""From the previous commit's chart and images to these, and back, under load: no request is lost, no secret changes.

The images of E2E_PREVIOUS_TAG are the previous ones; without it they are these, under another tag.
"""

import os
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from chart.rendering import CHART, ROOT
from cluster.kube import RELEASE, SERVICES, generated_secrets, helm, install, pods, run, wait_until_ready
from load import SteadyLoad

PREVIOUS = os.environ.get("E2E_PREVIOUS", "HEAD~1")
PER_SECOND = 8
AROUND_S = 5  # of load before and after
pytestmark = pytest.mark.timeout(1800)


def tag() -> str:
    """Return the tag of these images."""
    return str(yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["appVersion"])


@pytest.fixture(scope="module")
def previous_tag() -> str:
    if "E2E_PREVIOUS_TAG" in os.environ:
        return os.environ["E2E_PREVIOUS_TAG"]
    run(str(ROOT / "e2e" / "cluster" / "cluster.sh"), "tag", tag(), "previous")
    return "previous"


@pytest.fixture(scope="module")
def previous_chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("previous")
    archive = subprocess.run(["git", "archive", PREVIOUS, "charts/hunmin"], cwd=ROOT, check=True, capture_output=True)
    subprocess.run(["tar", "-x"], cwd=folder, check=True, input=archive.stdout)
    return folder / "charts" / "hunmin"


@pytest.fixture(scope="module")
def on_previous(previous_chart: Path, previous_tag: str) -> None:
    """The release is the previous one."""
    install(previous_chart, "--set", f"image.tag={previous_tag}")
    wait_for_all()


def wait_for_all() -> None:
    for part in SERVICES:
        wait_until_ready(part, within_s=300)


def tags() -> set[str]:
    return {pod["spec"]["containers"][0]["image"].rpartition(":")[2] for part in SERVICES for pod in pods(part)}


@pytest.mark.usefixtures("on_previous")
def test_neither_an_upgrade_nor_a_rollback_loses_a_request_or_a_secret(studio, account, previous_tag: str):
    secrets = generated_secrets()
    assert "key-pepper" in secrets
    assert tags() == {previous_tag}
    for what, change in (
        ("upgrade", lambda: install(CHART, "--set", f"image.tag={tag()}")),
        ("rollback", lambda: helm("rollback", RELEASE, "--wait", "--timeout", "15m")),
    ):
        began = time.monotonic()
        with SteadyLoad(studio.url, account.key, studio.model, PER_SECOND).running() as load:
            time.sleep(AROUND_S)
            change()
            wait_for_all()
            time.sleep(AROUND_S)
        print(f"{what} in {time.monotonic() - began:.0f} s: {load.summary()}")
        assert load.lost == []
        assert load.answered > 0
        assert tags() == {previous_tag if what == "rollback" else tag()}
        assert secrets.items() <= generated_secrets().items()
    account.auditor.wait_until_settled(within_s=180)
