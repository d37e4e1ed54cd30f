"""Rules for pods and their containers."""

from collections import Counter
from collections.abc import Iterator

from chart.rendering import Object, Pod, environment, kind, pods

_ALLOWED_VOLUMES = {"emptyDir", "persistentVolumeClaim", "configMap", "secret", "projected", "downwardAPI"}
_SERVICES = "Deployment"


def restricted_pod_security(found: list[Object]) -> Iterator[str]:
    """Pods meet Kubernetes' standard `restricted`."""
    for pod in pods(found):
        context = pod.spec.get("securityContext", {})
        if not context.get("runAsNonRoot") or context.get("runAsUser", 0) == 0:
            yield f"{pod.name} may run as root"
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{pod.name} has no seccomp profile"
        if any(pod.spec.get(each) for each in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{pod.name} uses a namespace of the host"
        for volume in pod.spec.get("volumes", []):
            if not _ALLOWED_VOLUMES & volume.keys():
                yield f"{pod.name} has the volume {volume}"
        for container in pod.containers:
            context = container.get("securityContext", {})
            if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
                yield f"{pod.name}/{container['name']} may gain privileges"
            if context.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{pod.name}/{container['name']} keeps capabilities"


def read_only_root(found: list[Object]) -> Iterator[str]:
    """No container writes to its image, and each has /tmp."""
    for pod in pods(found):
        for container in pod.containers:
            if not container.get("securityContext", {}).get("readOnlyRootFilesystem"):
                yield f"{pod.name}/{container['name']} may write to its root"
            if "/tmp" not in {mount["mountPath"] for mount in container["volumeMounts"]}:  # noqa: S108  # the pod's own
                yield f"{pod.name}/{container['name']} has no /tmp"


def sized_scratch(found: list[Object]) -> Iterator[str]:
    """What a pod may write to a node is bounded."""
    for pod in pods(found):
        for volume in pod.spec.get("volumes", []):
            if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
                yield f"{pod.name} may fill the node by {volume['name']}"


def mounts_are_volumes(found: list[Object]) -> Iterator[str]:
    """Every mount names a volume, and every volume is mounted."""
    for pod in pods(found):
        claims = [claim["metadata"]["name"] for claim in pod.owner["spec"].get("volumeClaimTemplates", [])]
        volumes = {volume["name"] for volume in pod.spec.get("volumes", [])} | set(claims)
        mounted = {mount["name"] for container in pod.containers for mount in container["volumeMounts"]}
        if volumes != mounted:
            yield f"{pod.name} has volumes {sorted(volumes)} and mounts {sorted(mounted)}"


def resources_everywhere(found: list[Object]) -> Iterator[str]:
    """Every container requests processor and memory, and is held to its memory."""
    for pod in pods(found):
        for container in pod.containers:
            resources = container.get("resources", {})
            wanted = {"requests": {"cpu", "memory"}, "limits": {"memory"}}
            for part, names in wanted.items():
                if missing := names - resources.get(part, {}).keys():
                    yield f"{pod.name}/{container['name']} has no {part} of {sorted(missing)}"


def probes_distinct(found: list[Object]) -> Iterator[str]:
    """A service is alive by another path than it is ready by, and has time to start; only /readyz may ask others."""
    for pod in pods(kind(found, _SERVICES, "StatefulSet")):
        container = pod.spec["containers"][0]
        startup, live, ready = (container.get(f"{each}Probe") for each in ("startup", "liveness", "readiness"))
        if not (startup and live and ready):
            yield f"{pod.name} lacks a probe"
        elif pod.owner["kind"] == _SERVICES:
            paths = [probe["httpGet"]["path"] for probe in (startup, live, ready)]
            if paths != ["/livez", "/livez", "/readyz"]:
                yield f"{pod.name} is probed at {paths}"
        if startup and startup.get("failureThreshold", 3) * startup.get("periodSeconds", 10) < 60:
            yield f"{pod.name} has less than a minute to start"


def grace_beyond_drain(found: list[Object]) -> Iterator[str]:
    """A pod leaves its Service, drains, and is ended only after both."""
    for pod in pods(kind(found, _SERVICES)):
        container = pod.spec["containers"][0]
        delay = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        drain = float(str(environment(container).get("HUNMIN_DRAIN_S", "inf")))
        if delay < 1:
            yield f"{pod.name} is told to end while it is still sent requests"
        if pod.spec.get("terminationGracePeriodSeconds", 30) <= delay + drain:
            yield f"{pod.name} is ended before it has drained"


def replaced_one_by_one(found: list[Object]) -> Iterator[str]:
    """In an upgrade no pod is missing, but where one more has no room: then one is."""
    for deployment in kind(found, _SERVICES):
        update = deployment["spec"]["strategy"]["rollingUpdate"]
        if update["maxUnavailable"] != (0 if update["maxSurge"] else 1):
            yield f"Deployment {deployment['metadata']['name']} is replaced by {update}"


def no_duplicate_env(found: list[Object]) -> Iterator[str]:
    """No variable is set twice: the last one would win in silence."""
    for pod in pods(found):
        for container in pod.containers:
            counts = Counter(each["name"] for each in container.get("env", []))
            for name, count in counts.items():
                if count > 1:
                    yield f"{pod.name}/{container['name']} sets {name} {count} times"


def no_service_links(found: list[Object]) -> Iterator[str]:
    """No Service sets variables: hunmin-gateway's would be HUNMIN_GATEWAY_PORT=tcp://…."""
    yield from (pod.name for pod in pods(found) if pod.spec.get("enableServiceLinks") is not False)


def spread_over_nodes(found: list[Object]) -> Iterator[str]:
    """Replicas of a service lie on different nodes where they can."""
    for pod in pods(kind(found, _SERVICES)):
        selectors = [each["labelSelector"] for each in pod.spec.get("topologySpreadConstraints", [])]
        if selectors != [pod.owner["spec"]["selector"]]:
            yield f"{pod.name} is not spread"


def tokens_where_used(found: list[Object]) -> Iterator[str]:
    """Only a pod whose account a role is bound to has a token."""
    subjects = [subject for binding in kind(found, "RoleBinding") for subject in binding["subjects"]]
    bound = {subject["name"] for subject in subjects}
    for pod in pods(found):
        if pod.spec.get("automountServiceAccountToken") is not (pod.spec.get("serviceAccountName") in bound):
            yield f"{pod.name} has a token that it does not use, or lacks one that it does"
    for account in kind(found, "ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield f"ServiceAccount {account['metadata']['name']} hands tokens out"


def fits_a_small_node(found: list[Object]) -> Iterator[str]:
    """What runs all the time fits into 2 processors and 4 GiB, at the limits of memory too."""
    cpu = memory = limit = 0.0
    for pod in pods(kind(found, _SERVICES)):
        resources, replicas = pod.spec["containers"][0]["resources"], pod.owner["spec"].get("replicas", 1)
        cpu += replicas * quantity(resources["requests"]["cpu"])
        memory += replicas * quantity(resources["requests"]["memory"])
        limit += replicas * quantity(resources["limits"]["memory"])
    if cpu > 2 or memory > 4 * 2**30 or limit > 4 * 2**30:
        yield f"the services want {cpu} processors, {memory / 2**30:.2f} GiB, at most {limit / 2**30:.2f} GiB"


def quantity(text: str | int) -> float:
    """Return a quantity of Kubernetes as a number."""
    units = {"m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    for unit, factor in units.items():
        if str(text).endswith(unit):
            return float(str(text).removesuffix(unit)) * factor
    return float(text)


def pull_secrets_everywhere(found: list[Object], secrets: list[str]) -> Iterator[str]:
    """Every pod, those of tuning jobs too, brings the Secrets of the registry."""
    for pod in pods(found):
        if [each["name"] for each in pod.spec.get("imagePullSecrets", [])] != secrets:
            yield pod.name
    for pod, job in tuning_jobs(found):
        if job["image_pull_secrets"] != secrets:
            yield f"the tuning jobs of {pod.name}"


def tuning_jobs(found: list[Object]) -> Iterator[tuple[Pod, Object]]:
    """Yield what a service is told of its PyTorchJobs."""
    import json

    for pod in pods(found):
        for container in pod.containers:
            text = environment(container).get("HUNMIN_TUNING_PYTORCHJOB")
            if isinstance(text, str):
                yield pod, json.loads(text)
