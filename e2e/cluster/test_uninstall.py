"""Uninstalling leaves what NOTES names, and what is not the release's."""

import re
import time

from cluster.kube import RELEASE, helm, kubectl, run

# A namespace has these by itself, and the last the test's own installation made for models.
NOT_OURS = {"serviceaccount/default", "configmap/kube-root-ca.crt", "persistentvolumeclaim/hunmin-models"}
PASSING = {"events", "events.events.k8s.io", "podmetrics.metrics.k8s.io"}
PATIENCE_S = 180


def test_it_leaves_only_the_volumes_that_its_notes_name():
    (named,) = re.findall(r"these volumes: (.*)\.", helm("get", "notes", RELEASE))
    helm("uninstall", RELEASE, "--wait", "--timeout", "10m")
    expected = NOT_OURS | {f"persistentvolumeclaim/{name}" for name in named.split(", ")}
    deadline = time.monotonic() + PATIENCE_S
    while (left := _everything()) != expected:  # pods end when their requests have
        assert time.monotonic() < deadline, left ^ expected
        time.sleep(1)


def _everything() -> set[str]:
    kinds = set(run("kubectl", "api-resources", "--namespaced", "--verbs=list", "--output=name").split()) - PASSING
    return set(kubectl("get", ",".join(sorted(kinds)), "--output", "name").split())
