"""Rules for objects and what they say of one another."""

import base64
import re
from collections import Counter
from collections.abc import Iterator

from chart.checks.pods import tuning_jobs
from chart.rendering import Object, environment, kind, pods, selects, title

_SECRET_NAME = re.compile(
    r"PASSWORD|SECRET|PEPPER|TOKEN(?!IZER)|CREDENTIAL|BOOTSTRAP_KEY|ACCESS_KEY|DATABASE_URL|IDENTITY$"
)
_URL_WITH_PASSWORD = re.compile(r"://[^/\s:]*:[^/\s@]+@")
# The Secrets and claims of the value sets: what somebody keeps themselves.
YOURS = {
    "hunmin-database", "kafka-user", "hunmin-models", "shared-models", "blob-store", "keycloak-admin", "registry",
    "vllm", "studio-tls", "studio-gateway", "studio-database", "studio-blobs", "studio-client",
}  # fmt: skip


def names_from_one_place(found: list[Object]) -> Iterator[str]:
    """Every name begins with its release's, fits into a label, and is of one object alone."""
    counts = Counter(title(item) for item in found)
    yield from (f"{name} is there {count} times" for name, count in counts.items() if count > 1)
    for item in found:
        name, release = item["metadata"]["name"], item["metadata"]["labels"]["app.kubernetes.io/instance"]
        if not name.startswith(f"{release}-hunmin-") or len(name) > 63:
            yield f"{title(item)} is not named after {release}"


def hooks_hold_only_jobs(found: list[Object]) -> Iterator[str]:
    """A hook is a Job: Helm neither upgrades nor removes other hooks."""
    for item in found:
        if "helm.sh/hook" in item["metadata"].get("annotations", {}) and item["kind"] != "Job":
            yield title(item)


def hooks_use_nothing_of_the_release(found: list[Object]) -> Iterator[str]:
    """A hook runs before the release's objects are there, so it uses none of them."""
    own = {
        item["metadata"]["name"]
        for item in kind(found, "Secret", "ConfigMap", "ServiceAccount", "PersistentVolumeClaim")
    }
    for pod in pods(found):
        if "helm.sh/hook" in pod.owner["metadata"].get("annotations", {}):
            yield from (f"{pod.name} uses {name}" for name in references(pod.spec) if name in own)


def references_are_there(found: list[Object]) -> Iterator[str]:
    """What a pod names is of the release, or yours: a typo would leave it waiting for ever."""
    own = {
        item["metadata"]["name"]
        for item in kind(found, "Secret", "ConfigMap", "ServiceAccount", "PersistentVolumeClaim")
    }
    for pod in pods(found):
        yield from (f"{pod.name} waits for {name}" for name in references(pod.spec) if name not in own | YOURS)


def references(spec: Object) -> list[str]:
    """Return the names of Secrets, ConfigMaps, claims and the account that a pod uses."""
    names = [spec["serviceAccountName"]] if "serviceAccountName" in spec else []
    names += [each["name"] for each in spec.get("imagePullSecrets", [])]
    for volume in spec.get("volumes", []):
        names += [volume[each][key] for each, key in _VOLUMES.items() if each in volume]
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        for value in environment(container).values():
            if isinstance(value, dict):
                names += [reference["name"] for reference in value.values()]
    return names


_VOLUMES = {"persistentVolumeClaim": "claimName", "secret": "secretName", "configMap": "name"}


def no_secret_outside_secrets(found: list[Object]) -> Iterator[str]:
    """A variable with a secret comes from a Secret, and what the chart makes up stands nowhere else."""
    for pod in pods(found):
        for container in pod.containers:
            for name, value in environment(container).items():
                if isinstance(value, str) and (_SECRET_NAME.search(name) or _URL_WITH_PASSWORD.search(value)):
                    yield f"{pod.name}/{container['name']} has {name} in the open"
    secrets = [text for item in kind(found, "Secret") for text in item.get("data", {}).values()]
    others = repr([item for item in found if item["kind"] != "Secret"])
    for text in secrets:
        if text in others or base64.b64decode(text).decode() in others:
            yield "a value of a Secret stands in another object"


def rbac_is_narrow(found: list[Object]) -> Iterator[str]:
    """Only the tuning service may do something in the cluster, in one namespace, and nothing by a wildcard."""
    yield from (title(item) for item in kind(found, "ClusterRole", "ClusterRoleBinding"))
    for role in kind(found, "Role"):
        for rule in role["rules"]:
            if "*" in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]:
                yield f"{title(role)} has a wildcard"
            if "secrets" in rule["resources"]:
                yield f"{title(role)} reads secrets"
    for binding in kind(found, "RoleBinding"):
        for subject in binding["subjects"]:
            if not subject["name"].endswith("-tuning") or subject["namespace"] != "studios":
                yield f"{title(binding)} is for {subject}"


def selectors_find_their_pods(found: list[Object]) -> Iterator[str]:
    """Services, budgets and policies select pods of one part of one release; a Service's port is one of theirs."""
    there = list(pods(found))
    for item in kind(found, "Service", "PodDisruptionBudget", "Deployment", "StatefulSet"):
        selector = item["spec"]["selector"]
        selector = selector if "matchLabels" in selector else {"matchLabels": selector}
        if "app.kubernetes.io/instance" not in selector["matchLabels"]:
            yield f"{title(item)} selects pods of other releases"
        chosen = [pod for pod in there if selects(selector, pod.labels)]
        owners = {(pod.part, pod.labels["app.kubernetes.io/instance"]) for pod in chosen}
        if [owner[1] for owner in owners] != [item["metadata"]["labels"]["app.kubernetes.io/instance"]]:
            yield f"{title(item)} selects {sorted(owners)}"
        elif item["kind"] == "Service":
            ports = {port["name"] for port in chosen[0].spec["containers"][0]["ports"]}
            yield from (
                f"{title(item)} has no {port}" for port in item["spec"]["ports"] if port["targetPort"] not in ports
            )


def scaled_by_one(found: list[Object]) -> Iterator[str]:
    """A Deployment has either replicas or an autoscaler, which would otherwise undo each other."""
    targets = {item["spec"]["scaleTargetRef"]["name"] for item in kind(found, "HorizontalPodAutoscaler")}
    deployments = {item["metadata"]["name"]: item for item in kind(found, "Deployment")}
    yield from (f"there is no Deployment {name}" for name in targets - deployments.keys())
    for name, item in deployments.items():
        if ("replicas" in item["spec"]) is (name in targets):
            yield f"{title(item)} is scaled by both, or by none"


def disruption_budgets(found: list[Object]) -> Iterator[str]:
    """A drained node takes one pod of a service at a time, and is never kept from draining."""
    budgets = [item["spec"] for item in kind(found, "PodDisruptionBudget")]
    for pod in pods(kind(found, "Deployment")):
        own = [budget for budget in budgets if selects(budget["selector"], pod.labels)]
        if [budget.get("maxUnavailable") for budget in own] != [1]:
            yield f"{pod.name} has no budget of one"


def jobs_may_run_again(found: list[Object]) -> Iterator[str]:
    """A Job that is no hook is named after its revision, since a Job cannot be changed; a hook is made anew."""
    for job in kind(found, "Job"):
        annotations = job["metadata"].get("annotations", {})
        is_hook = "before-hook-creation" in annotations.get("helm.sh/hook-delete-policy", "")
        if not is_hook and not re.search(r"-r[0-9]+$", job["metadata"]["name"]):
            yield f"{title(job)} cannot be run by the next revision"


def schemas_are_migrated_in_time(found: list[Object]) -> Iterator[str]:
    """Each service with a schema has its migration: before the upgrade on a database that is there, else beside it."""
    jobs = {job["metadata"]["labels"]["app.kubernetes.io/component"]: job for job in kind(found, "Job")}
    is_bundled = any(item["metadata"]["name"].endswith("-postgresql") for item in kind(found, "StatefulSet"))
    for pod in pods(kind(found, "Deployment")):
        if "HUNMIN_DATABASE_URL" not in environment(pod.spec["containers"][0]):
            continue
        job = jobs.get(f"migrate-{pod.part}")
        hook = None if job is None else job["metadata"].get("annotations", {}).get("helm.sh/hook")
        if job is None or hook != (None if is_bundled else "pre-install,pre-upgrade"):
            yield f"{pod.name} has no migration in time"


def tuning_jobs_have_their_volume(found: list[Object]) -> Iterator[str]:
    """Pods of tuning jobs read models from the claim that the service reads them from, at the same path."""
    for pod, job in tuning_jobs(found):
        claims = [
            volume["persistentVolumeClaim"]["claimName"]
            for volume in pod.spec["volumes"]
            if "persistentVolumeClaim" in volume
        ]
        if [mount["claim"] for mount in job["mounts"]] != claims or job["mounts"][0]["path"] != "/models":
            yield f"{pod.name} reads {claims}, its jobs {job['mounts']}"
