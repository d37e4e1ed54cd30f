"""Rules for the network: nothing is open but what is named, and what is needed is."""

from collections.abc import Iterator
from itertools import product
from urllib.parse import urlsplit

from chart.rendering import Object, Pod, environment, kind, pods, selects, title

_DNS = 53


def everything_is_denied(found: list[Object]) -> Iterator[str]:
    """Each pod is selected by a policy that refuses all that is not named, in both directions."""
    deny = [item["spec"] for item in kind(found, "NetworkPolicy") if item["metadata"]["name"].endswith("-deny")]
    for pod in pods(found):
        chosen = [spec for spec in deny if selects(spec["podSelector"], pod.labels)]
        if [set(spec["policyTypes"]) for spec in chosen] != [{"Ingress", "Egress"}] or any(
            "ingress" in each for each in chosen
        ):
            yield f"{pod.name} is open"


def edges_are_explicit(found: list[Object]) -> Iterator[str]:
    """Every rule names ports, every way in names who comes: but for the doors to the world, and a job's own workers."""
    for item in kind(found, "NetworkPolicy"):
        part, spec = item["metadata"]["labels"]["app.kubernetes.io/component"], item["spec"]
        if part == "tuning-job":
            own = [{"podSelector": spec["podSelector"]}]
            if spec["ingress"] != [{"from": own}] or any(
                "ports" not in rule and rule["to"] != own for rule in spec["egress"]
            ):
                yield f"{title(item)} opens more than the workers to each other"
            continue
        for rule in [*(spec.get("ingress") or []), *(spec.get("egress") or [])]:
            if not rule.get("ports"):
                yield f"{title(item)} opens every port"
        if part not in ("gateway", "keycloak") and any(not rule.get("from") for rule in spec.get("ingress") or []):
            yield f"{title(item)} lets everybody in"


def needed_edges_are_there(found: list[Object]) -> Iterator[str]:
    """Whoever is told the address of a pod of the release may reach it, and is let in there."""
    services = {item["metadata"]["name"]: item for item in kind(found, "Service")}
    there = list(pods(found))
    for caller in there:
        for host, port in addresses(caller):
            if host not in services:
                continue
            selector = {"matchLabels": services[host]["spec"]["selector"]}
            callee = next(pod for pod in there if selects(selector, pod.labels))
            if not allowed(found, caller, callee, port, "egress"):
                yield f"{caller.name} may not call {host}:{port}"
            if not allowed(found, caller, callee, port, "ingress"):
                yield f"{host}:{port} does not let {caller.name} in"


def unneeded_edges_are_not(found: list[Object]) -> Iterator[str]:
    """Services that do not call each other cannot."""
    services = {item["metadata"]["name"]: item for item in kind(found, "Service")}
    deployed = list(pods(kind(found, "Deployment")))
    for caller, callee in product(deployed, deployed):
        host = callee.owner["metadata"]["name"]
        port = services[host]["spec"]["ports"][0]["port"]
        is_called = (host, port) in addresses(caller)
        if caller != callee and not is_called and allowed(found, caller, callee, port, "egress"):
            yield f"{caller.name} may call {host}, and does not need to"


def outer_edges_are_there(found: list[Object]) -> Iterator[str]:
    """Whoever is told an address outside of the release, and whoever looks names up, is let out at its port."""
    services = {item["metadata"]["name"] for item in kind(found, "Service")}
    for pod in pods(found):
        open_ports = {port for rule in rules(found, pod, "egress") for port in _ports(rule)}
        for host, port in addresses(pod):
            if host not in services and port not in open_ports:
                yield f"{pod.name} is not let out to {host}:{port}"
        if _DNS not in open_ports:
            yield f"{pod.name} cannot look names up"


def addresses(pod: Pod) -> set[tuple[str, int]]:
    """Return the hosts and ports that a pod's own process is told to call."""
    told = set()
    for name, value in environment(pod.spec["containers"][0]).items():
        if not isinstance(value, str) or name in ("HUNMIN_GATEWAY_PUBLIC_URL", "KC_HOSTNAME", "S3PROXY_ENDPOINT"):
            continue
        if name == "HUNMIN_GATEWAY_OIDC_ISSUER" and "HUNMIN_GATEWAY_OIDC_DISCOVERY_URL" in environment(
            pod.spec["containers"][0]
        ):
            continue  # browsers go there, pods by the other one
        # A job has its service's variables, and calls no more than its command does.
        if pod.owner["kind"] == "Job" and name not in _OF_JOBS.get(pod.part, ()):
            continue
        if name == "HUNMIN_KAFKA_SERVERS":
            told |= {(server.split(":")[0], int(server.split(":")[1])) for server in value.split(",")}
        elif value.startswith(("http://", "https://")):
            url = urlsplit(value)
            told.add((url.hostname or "", url.port or {"http": 80, "https": 443}[url.scheme]))
    return told


_OF_JOBS = {"topics": {"HUNMIN_KAFKA_SERVERS"}, "realm": {"HUNMIN_GATEWAY_OIDC_ISSUER"}}


def rules(found: list[Object], pod: Pod, direction: str) -> Iterator[Object]:
    """Yield what the policies of a pod allow in that direction."""
    for item in kind(found, "NetworkPolicy"):
        if selects(item["spec"]["podSelector"], pod.labels):
            yield from item["spec"].get(direction) or []


def allowed(found: list[Object], caller: Pod, callee: Pod, port: int, direction: str) -> bool:
    """Tell whether a call between two pods of a release passes in that direction."""
    pod, other, key = (caller, callee, "to") if direction == "egress" else (callee, caller, "from")
    return any(
        port in _ports(rule)
        and any("podSelector" in peer and selects(peer["podSelector"], other.labels) for peer in rule[key])
        if rule.get(key)
        else port in _ports(rule) and direction == "ingress"
        for rule in rules(found, pod, direction)
    )


def _ports(rule: Object) -> set[int]:
    return {each["port"] for each in rule.get("ports", [])}
