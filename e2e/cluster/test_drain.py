"""A node is drained as for its maintenance: budgets keep a pod of each service, requests go on, and all come back."""

import subprocess
import time

import pytest
from auditor import check
from cluster.kube import NAMESPACE, SERVICES, nodes, pods, ready, replicas, run, wait_until_ready
from load import Load, went_on

# Bundled servers have one pod each, and no budget: a drain that takes them is an outage by itself.
OURS = f"app.kubernetes.io/name=hunmin,app.kubernetes.io/component in ({','.join(SERVICES)})"
PATIENCE_S = 60


@pytest.mark.timeout(1200)
def test_a_drained_node_leaves_a_pod_of_each_service_until_there_is_room(account, studio):
    (node, *others) = nodes()
    kept = [part for part in SERVICES if replicas(part) > 1]
    assert kept
    with Load(studio.url, account.key, time.time_ns() % 100_000, studio.model).running() as load:
        went_on(load)
        try:
            drained = _drain(node)
            if not others:  # there is no room for the pods that went
                assert drained.returncode, "all pods were evicted"
                assert {part: ready(part) for part in kept} == {part: replicas(part) - 1 for part in kept}
                assert "disruption budget" in drained.stderr
            went_on(load)
        finally:
            run("kubectl", "uncordon", node)
        for part in SERVICES:
            wait_until_ready(part, within_s=300)
            assert len(pods(part)) == replicas(part)
        went_on(load)
    print(f"{len(load.answers)} requests, failures: {load.failures}")
    account.auditor.wait_until_settled(within_s=180)
    print(check(account.auditor, load.answers))
    assert [failure for failure in load.failures if failure.how == "whole" and failure.is_lost] == []


def _drain(node: str) -> subprocess.CompletedProcess[str]:
    command = ["kubectl", "--namespace", NAMESPACE, "drain", node, f"--pod-selector={OURS}"]
    options = ["--delete-emptydir-data", "--ignore-daemonsets", f"--timeout={PATIENCE_S}s"]
    return subprocess.run([*command, *options], capture_output=True, text=True, check=False)
