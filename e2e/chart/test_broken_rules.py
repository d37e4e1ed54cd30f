"""Every rule is seen to fail: a change for each, that somebody might make, of what the chart renders."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from chart.checks.rules import RULES, Rule
from chart.rendering import Object, kind, value_set

Change = Callable[[list[Object]], object]


def deployment(found: list[Object], part: str = "gateway") -> Object:
    """Return the Deployment of a service."""
    return next(item for item in kind(found, "Deployment") if item["metadata"]["name"].endswith(f"-{part}"))


def pod(found: list[Object], part: str = "gateway") -> Object:
    """Return the spec of a service's pod."""
    spec: Object = deployment(found, part)["spec"]["template"]["spec"]
    return spec


def container(found: list[Object], part: str = "gateway") -> Object:
    """Return the container of a service."""
    first: Object = pod(found, part)["containers"][0]
    return first


def named(found: list[Object], kind_name: str, end: str) -> Object:
    """Return the object of a kind whose name ends so."""
    return next(item for item in kind(found, kind_name) if item["metadata"]["name"].endswith(end))


def variable(name: str, value: Any, part: str = "gateway") -> Change:
    """Return the change that sets a variable, or sets it anew."""

    def change(found: list[Object]) -> None:
        env = container(found, part)["env"]
        env[:] = [each for each in env if each["name"] != name] + [{"name": name, "value": value}]

    return change


def without(name: str) -> Change:
    """Return the change that takes a variable of the gateway away."""
    return lambda found: container(found).update(env=[each for each in container(found)["env"] if each["name"] != name])


def annotate(item: Object, annotations: dict[str, str]) -> None:
    """Annotate an object."""
    item["metadata"]["annotations"] = annotations


def hook(found: list[Object]) -> Object:
    """Return a Job that is a hook."""
    return next(item for item in kind(found, "Job") if "helm.sh/hook" in item["metadata"].get("annotations", {}))


def mount_of_jobs(found: list[Object]) -> None:
    env = container(found, "tuning")["env"]
    setting = next(each for each in env if each["name"] == "HUNMIN_TUNING_PYTORCHJOB")
    setting["value"] = json.dumps(json.loads(setting["value"]) | {"mounts": [{"claim": "other", "path": "/models"}]})


def metric_that_nobody_tells(found: list[Object]) -> None:
    files = named(found, "ConfigMap", "-dashboards")["data"]
    files.update(
        {name: text.replace("hunmin_http_requests_total", "hunmin_requests_total") for name, text in files.items()}
    )


def policy(found: list[Object], part: str) -> Object:
    spec: Object = named(found, "NetworkPolicy", f"-{part}")["spec"]
    return spec


def edge_back(found: list[Object]) -> None:
    """The tokenizer may call the gateway."""
    rule = policy(found, "gateway")["egress"][0]
    caller = json.loads(json.dumps(rule).replace("generation", "gateway").replace("8082", "8080"))
    policy(found, "tokenizer").setdefault("egress", None)
    policy(found, "tokenizer")["egress"] = [*(policy(found, "tokenizer")["egress"] or []), caller]


def secret_in_the_open(found: list[Object]) -> None:
    named(found, "Secret", "-generated")["data"] = {"key-pepper": base64.b64encode(b"a pepper").decode()}
    annotate(named(found, "Service", "-gateway"), {"pepper": "a pepper"})


# Several for one rule, where it has several parts.
CHANGES: dict[str, list[Change]] = {
    "fields_are_known": [
        lambda found: pod(found).update(serviceAcountName="typo"),
        lambda found: container(found).pop("name"),
        lambda found: container(found).update(env={}),
        lambda found: pod(found).update(terminationGracePeriodSeconds="90"),
    ],
    "restricted_pod_security": [
        lambda found: pod(found)["securityContext"].update(runAsUser=0),
        lambda found: pod(found).update(hostNetwork=True),
        lambda found: pod(found)["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
        lambda found: container(found)["securityContext"].update(capabilities={"add": ["NET_ADMIN"]}),
        lambda found: pod(found)["securityContext"].pop("seccompProfile"),
        lambda found: container(found)["securityContext"].pop("allowPrivilegeEscalation"),
    ],
    "read_only_root": [
        lambda found: container(found)["securityContext"].update(readOnlyRootFilesystem=False),
        lambda found: container(found).update(volumeMounts=[]),
    ],
    "sized_scratch": [lambda found: pod(found)["volumes"][0].update(emptyDir={})],
    "mounts_are_volumes": [lambda found: pod(found, "generation")["volumes"].pop()],
    "resources_everywhere": [lambda found: container(found)["resources"]["limits"].pop("memory")],
    "probes_distinct": [
        lambda found: container(found).update(readinessProbe=container(found)["livenessProbe"]),
        lambda found: container(found).pop("startupProbe"),
    ],
    "grace_beyond_drain": [
        lambda found: pod(found).update(terminationGracePeriodSeconds=30),
        lambda found: container(found).pop("lifecycle"),
    ],
    "replaced_one_by_one": [
        lambda found: deployment(found)["spec"]["strategy"]["rollingUpdate"].update(maxUnavailable=1),
    ],
    "no_duplicate_env": [lambda found: container(found)["env"].append(container(found)["env"][0])],
    "no_service_links": [lambda found: pod(found).pop("enableServiceLinks")],
    "spread_over_nodes": [lambda found: pod(found).pop("topologySpreadConstraints")],
    "tokens_where_used": [
        lambda found: pod(found).pop("automountServiceAccountToken"),
        lambda found: named(found, "ServiceAccount", "-gateway").pop("automountServiceAccountToken"),
    ],
    "names_from_one_place": [
        lambda found: named(found, "Service", "-gateway")["metadata"].update(name="gateway"),
        lambda found: found.append(found[0]),
    ],
    "hooks_hold_only_jobs": [
        lambda found: annotate(named(found, "Secret", "-generated"), {"helm.sh/hook": "pre-install"}),
    ],
    "hooks_use_nothing_of_the_release": [
        lambda found: hook(found)["spec"]["template"]["spec"].update(serviceAccountName="studio-hunmin-gateway")
    ],
    "references_are_there": [lambda found: pod(found).update(serviceAccountName="nobody")],
    "no_secret_outside_secrets": [
        variable("HUNMIN_GATEWAY_KEY_PEPPER", "0123456789" * 4),
        variable("HUNMIN_X_URL", "https://user:word@host"),
        secret_in_the_open,
    ],
    "rbac_is_narrow": [
        lambda found: named(found, "Role", "-tuning-jobs")["rules"][0].update(verbs=["*"]),
        lambda found: named(found, "Role", "-tuning-jobs")["rules"][0].update(resources=["secrets"]),
        lambda found: named(found, "RoleBinding", "-tuning-jobs")["subjects"][0].update(name="other-hunmin-gateway"),
        lambda found: named(found, "Role", "-tuning-jobs").update(kind="ClusterRole"),
    ],
    "selectors_find_their_pods": [
        lambda found: named(found, "Service", "-gateway")["spec"]["selector"].pop("app.kubernetes.io/instance"),
        lambda found: named(found, "Service", "-gateway")["spec"]["ports"][0].update(targetPort="web"),
    ],
    "scaled_by_one": [lambda found: deployment(found)["spec"].update(replicas=1)],
    "disruption_budgets": [lambda found: found.remove(named(found, "PodDisruptionBudget", "-gateway"))],
    "jobs_may_run_again": [lambda found: hook(found)["metadata"].pop("annotations")],
    "schemas_are_migrated_in_time": [
        lambda found: found.remove(named(found, "Job", "-migrate-gateway")),
        lambda found: hook(found)["metadata"]["annotations"].update({"helm.sh/hook": "post-install"}),
    ],
    "tuning_jobs_have_their_volume": [mount_of_jobs],
    "everything_is_denied": [lambda found: found.remove(named(found, "NetworkPolicy", "-deny"))],
    "edges_are_explicit": [
        lambda found: policy(found, "generation")["ingress"][0].pop("from"),
        lambda found: policy(found, "generation")["egress"][0].pop("ports"),
        lambda found: policy(found, "tuning-job")["ingress"].append({}),
    ],
    "needed_edges_are_there": [
        lambda found: policy(found, "gateway").update(egress=[]),
        lambda found: policy(found, "generation").update(ingress=[]),
    ],
    "unneeded_edges_are_not": [edge_back],
    "outer_edges_are_there": [
        variable("HUNMIN_OTLP_ENDPOINT", "http://collector.example.org:9999"),
        lambda found: policy(found, "deny").update(egress=[]),
    ],
    "images_are_pinned": [
        lambda found: container(found).update(image="localhost/hunmin-gateway:latest"),
        lambda found: container(found).update(image="localhost/hunmin-gateway"),
        lambda found: container(found).update(image="hunmin-gateway:1"),
    ],
    "settings_are_read": [
        variable("HUNMIN_GATEWAY_PROT", "8080"),
        variable("HUNMIN_GENERATION_MODELS", "{}"),
        variable("HUNMIN_DRAIN_S", "soon"),
        variable("HUNMIN_TUNING_PYTORCHJOB", '{"workers": 2}', "tuning"),
        without("HUNMIN_TUNING_URL"),
    ],
    "commands_are_known": [lambda found: container(found).update(command=["hunmin", "serve", "gateway"])],
    "metrics_exist": [metric_that_nobody_tells],
}  # fmt: skip


CASES = [
    pytest.param(rule, change, id=f"{rule.__name__}-{number}")
    for rule in RULES
    for number, change in enumerate(CHANGES.get(rule.__name__, []), start=1)
]


def test_each_rule_is_broken() -> None:
    """No rule is without a change that breaks it."""
    assert {rule.__name__ for rule in RULES} == CHANGES.keys()


@pytest.mark.parametrize(("rule", "change"), CASES)
def test_rule_fails(rule: Rule, change: Change) -> None:
    """The rule holds of the full values, and does not any more after the change."""
    found = value_set("full")
    assert list(rule(found)) == []
    change(found)
    assert list(rule(found))
