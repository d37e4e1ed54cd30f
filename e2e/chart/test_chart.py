"""What shows only in several renderings, or in the chart's files; each with a case in which it must show."""

import json
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart.checks.api import fields_are_known
from chart.checks.images import image_list_is_complete, images_are_pinned, images_come_from
from chart.checks.pods import fits_a_small_node, pull_secrets_everywhere
from chart.checks.rules import RULES
from chart.checks.settings import settings_are_read
from chart.rendering import (
    CHART,
    KUBERNETES,
    ROOT,
    VALUES,
    Object,
    helm,
    kind,
    objects,
    pods,
    refusal,
    template,
    title,
)

SETS = pytest.mark.parametrize("values", VALUES)
HELMS = pytest.mark.parametrize("major", [3, 4])


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the chart that may be broken."""
    return Path(shutil.copytree(CHART, tmp_path / "hunmin"))


def lint(major: int, values: tuple[Path, ...], chart: Path = CHART) -> str | None:
    """Return what strict lint says against the chart, None if nothing."""
    done = helm(
        major, "lint", "--strict", str(chart), f"--kube-version={KUBERNETES}", *[f"--values={path}" for path in values]
    )
    return done.stdout + done.stderr if done.returncode else None


@HELMS
@SETS
def test_strict_lint(major: int, values: str) -> None:
    """Both Helms find nothing, warnings included."""
    assert lint(major, VALUES[values]) is None


@HELMS
def test_strict_lint_fails(major: int, copy: Path) -> None:
    """A warning is enough."""
    (copy / "templates" / "broken.yaml").write_text("apiVersion: v1\nkind: Service\nmetadata: {name: Not_A_Name}\n")
    assert lint(major, (), copy) is not None


UNKNOWN = [
    "replicas=2",
    "services.gateway.replica=2",
    "oidc.realm.enable=true",
    "tuningJobs.pytorchjob.worker=2",
    "dev.redis.enabled=true",
]
ILL = [
    "publicUrl=studio",
    "blobs.url=hunmin",
    "kafka.servers=kafka",
    "services.gateway.image.tag=latest",
    "settings.home=/data",
]


@HELMS
@pytest.mark.parametrize("value", [*UNKNOWN, *ILL])
def test_unknown_and_ill_values_are_refused(major: int, value: str) -> None:
    """The schema knows every key, and the form of most."""
    assert "schema" in (refusal((), f"--set={value}", major=major) or "")


def test_schema_that_lets_anything_in_is_seen(copy: Path) -> None:
    """The check above would fail."""
    schema = json.loads((copy / "values.schema.json").read_text(encoding="utf-8"))
    schema["additionalProperties"] = True
    (copy / "values.schema.json").write_text(json.dumps(schema), encoding="utf-8")
    assert refusal((), "--set=replicas=2", chart=copy) is None


CONTRADICTIONS = {
    "oidc.existingSecret": ("oidc.issuer=https://login.example.org/realms/hunmin",),
    "oidc.realm.adminSecret": (
        "oidc.issuer=https://login.example.org/realms/hunmin", "oidc.realm.enabled=true", "publicUrl=https://studio.example.org",
    ),
    "publicUrl": ("ingress.enabled=true",),
    "modelVolume.existingClaim": ("modelVolume.existingClaim=",),
    "services.tuning.url": ("services.tuning.enabled=false",),
    "services.tokenizer.headless": ("services.tokenizer.serviceType=LoadBalancer",),
    "tuningJobs.namespace": ("tuningJobs.namespace=jobs", "dev.s3.enabled=true"),
    "gatewayApi.parentRefs": ("gatewayApi.enabled=true", "publicUrl=https://studio.example.org"),
}  # fmt: skip


@pytest.mark.parametrize("named", CONTRADICTIONS)
def test_contradictions_are_refused(named: str) -> None:
    """Values that need another one say which."""
    assert named in (refusal((), *[f"--set={value}" for value in CONTRADICTIONS[named]]) or "")


@HELMS
@SETS
def test_rendering_is_deterministic(major: int, values: str) -> None:
    """Without a cluster nothing is made up: `helm template | kubectl apply` twice changes nothing."""
    again = helm(major, "template", "studio", str(CHART), "--namespace=studios", f"--kube-version={KUBERNETES}",
                 *[f"--values={path}" for path in VALUES[values]]).stdout  # fmt: skip
    assert template(VALUES[values], major=major) == again


def test_what_is_made_up_is_seen(copy: Path) -> None:
    """The check above would fail."""
    (copy / "templates" / "random.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ randAlpha 9 | lower }}}\n"
    )
    command = ["template", "studio", str(copy), f"--kube-version={KUBERNETES}"]
    assert helm(3, *command).stdout != helm(3, *command).stdout


@SETS
def test_both_helms_agree(values: str) -> None:
    """Helm 4 renders what Helm 3 does, and not what it does of other values."""
    assert by_title(objects(VALUES[values], major=3)) == by_title(objects(VALUES[values], major=4))
    assert by_title(objects(VALUES[values], "--set=drain.seconds=61")) != by_title(objects(VALUES[values], major=4))


def by_title(found: list[dict[str, object]]) -> dict[str, object]:
    """Return objects by kind and name: the order in which Helm prints them is its own."""
    return {title(item): item for item in found}


@SETS
def test_one_registry_moves_all_images(values: str) -> None:
    """imageRegistry goes before every other one."""
    moved = objects(VALUES[values], "--set=imageRegistry=mirror.example.org:5000")
    assert list(images_come_from(moved, "mirror.example.org:5000")) == []
    assert list(images_come_from(objects(VALUES[values]), "mirror.example.org:5000"))


def test_digest_goes_before_tag() -> None:
    """A digest pins an image."""
    digest = f"sha256:{'0' * 64}"
    found = objects((), f"--set=services.gateway.image.digest={digest}", "--set=image.tag=v2")
    assert list(images_are_pinned(found)) == []
    pulled = {pod.part: pod.containers[0]["image"] for pod in pods(kind(found, "Deployment"))}
    assert pulled["gateway"] == f"localhost/hunmin-gateway@{digest}"
    assert pulled["tuning"] == "localhost/hunmin-tuning:v2"


@SETS
def test_pull_secrets_everywhere(values: str) -> None:
    """Hooks, servers for development and tuning jobs have them too."""
    found = objects(VALUES[values], "--set=imagePullSecrets={first,second}")
    assert list(pull_secrets_everywhere(found, ["first", "second"])) == []
    next(pods(found)).spec.pop("imagePullSecrets")
    assert list(pull_secrets_everywhere(found, ["first", "second"]))


def test_defaults_fit_a_small_node() -> None:
    """2 processors and 4 GiB are enough."""
    assert list(fits_a_small_node(objects())) == []
    assert list(fits_a_small_node(objects((), "--set=services.generation.replicas=2")))


CHANGED = {
    "settings.log_level=DEBUG": {"gateway", "generation", "tokenizer", "tuning"},
    "services.generation.settings.max_running=9": {"generation"},
    "kafka.servers=kafka:9092": {"gateway", "generation", "tuning"},
    "models.starter.url=https://host/starter,models.starter.files.x=" + "0" * 64: {"generation", "tokenizer", "tuning"},
    "services.gateway.replicas=3": set(),
}


@pytest.mark.parametrize("change", CHANGED)
def test_config_change_rolls_pods(change: str) -> None:
    """Whatever a process reads is in its pod's template, so that a change makes new pods, and only where it is read."""
    before, after = (
        {pod.part: pod.spec for pod in pods(kind(found, "Deployment"))}
        for found in (objects(), objects((), f"--set={change}"))
    )
    assert {part for part, spec in after.items() if spec != before[part]} == CHANGED[change]


def test_next_version_restarts_our_pods_alone(copy: Path) -> None:
    """Pods change by their images: those of a database, which have none of ours, go on."""
    about = copy / "Chart.yaml"
    about.write_text(about.read_text(encoding="utf-8").replace("0.1.0", "0.2.0"), encoding="utf-8")
    before, after = (
        {pod.name: (pod.metadata, pod.spec) for pod in pods(kind(found, "Deployment", "StatefulSet"))}
        for found in (objects(VALUES["development"]), objects(VALUES["development"], chart=copy))
    )
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if name.startswith("Deployment")}


def test_two_releases_share_nothing() -> None:
    """Two releases of one namespace have no name in common, and no selector takes the other's pods."""
    one, other = objects(release="one"), objects(release="other")
    assert not by_title(one).keys() & by_title(other).keys()
    assert by_title(one).keys() & by_title(objects((), "--set=services.gateway.replicas=2", release="one")).keys()


def test_image_list_is_complete() -> None:
    """images.txt is what an air-gapped installation has to copy."""
    listed = (CHART / "images.txt").read_text(encoding="utf-8")
    found = objects(VALUES["development"]) + objects(VALUES["full"])
    assert list(image_list_is_complete(found, listed)) == []
    assert list(image_list_is_complete(found, listed.replace("hunmin-tuning", "hunmin-tuner")))


def artifacts_differ(skaffold: dict[str, Any], found: list[Object]) -> list[str]:
    """Return what skaffold builds and nothing runs, what it does not build, and what it does not tell the chart."""
    built = {artifact["image"] for artifact in skaffold["build"]["artifacts"]}
    run = {pod.containers[0]["image"].rpartition(":")[0] for pod in pods(kind(found, "Deployment"))}
    told = skaffold["deploy"]["helm"]["releases"][0]["setValueTemplates"]
    untold = {f"services.{pod.part}.image.tag" for pod in pods(kind(found, "Deployment"))} - told.keys()
    return sorted((built ^ run) | untold)


def test_skaffold_builds_what_the_chart_runs() -> None:
    """One artifact for each service, and its tag goes to the chart."""
    skaffold = yaml.safe_load((ROOT / "skaffold.yaml").read_text(encoding="utf-8"))
    assert artifacts_differ(skaffold, objects()) == []
    skaffold["build"]["artifacts"].pop()
    assert artifacts_differ(skaffold, objects())


def role_of(path: Path) -> list[Object]:
    """Return the rules of the Role in a file."""
    return [item["rules"] for item in yaml.safe_load_all(path.read_text(encoding="utf-8")) if item["kind"] == "Role"]


def test_role_is_the_service_s_own() -> None:
    """The tuning service may do here what it may where it is installed without the chart."""
    roles = kind(objects(VALUES["full"]), "Role")
    assert [role["rules"] for role in roles] == role_of(ROOT / "services" / "tuning" / "pytorchjobs.yaml")
    roles[0]["rules"][0]["verbs"].append("watch")
    assert [role["rules"] for role in roles] != role_of(ROOT / "services" / "tuning" / "pytorchjobs.yaml")


def test_examples_are_known() -> None:
    """What the documents have one apply is well formed."""
    found = list(yaml.safe_load_all((CHART / "examples" / "models.yaml").read_text(encoding="utf-8")))
    assert list(fields_are_known(found)) == []
    found[1]["spec"]["container"] = []
    assert list(fields_are_known(found))


def documented_values() -> list[str]:
    """Return the values that docs/operations.md shows whole."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^( *)```yaml\n(.*?)^\1```$", text, flags=re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for _, block in blocks if "…" not in block]


@pytest.mark.parametrize("number", range(3))
def test_documented_values_are_taken(number: int, tmp_path: Path) -> None:
    """Whoever copies values from the documents is not refused, and is with one that is misspelt."""
    values = tmp_path / "values.yaml"
    values.write_text(documented_values()[number], encoding="utf-8")
    assert refusal((values,)) is None
    values.write_text(documented_values()[number].replace(":", "s:", 1), encoding="utf-8")
    assert refusal((values,)) is not None


NEW_SERVICE = {
    "enabled": True,
    "image": {"repository": "hunmin-filter"},
    "port": 8084,
    "databaseKey": "url",
    "needs": ["tokenizer"],
    "replicas": 1,
    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
}


def test_new_service_is_a_name_in_the_values() -> None:
    """Every rule but those that ask the service's own code holds of a service that is not there yet."""
    services = {"filter": NEW_SERVICE, "gateway": {"needs": ["generation", "tokenizer", "tuning", "filter"]}}
    found = objects((), f"--set-json=services={json.dumps(services)}")
    new = {"Deployment studios/studio-hunmin-filter", "Job studios/studio-hunmin-migrate-filter"}
    assert new <= by_title(found).keys()
    assert [complaint for rule in RULES if rule is not settings_are_read for complaint in rule(found)] == []


def test_network_policy_can_be_left_out() -> None:
    """networkPolicy.enabled is all there is to it."""
    assert kind(objects(VALUES["development"], "--set=networkPolicy.enabled=false"), "NetworkPolicy") == []


@SETS
def test_a_rollout_does_not_fail_before_its_pods_do(values: str) -> None:
    """Helm 4 gives up when Kubernetes does, which is after ten minutes where nothing else is said."""
    for item in kind(objects(VALUES[values]), "Deployment"):
        (probed,) = item["spec"]["template"]["spec"]["containers"]
        probe = probed["startupProbe"]
        assert item["spec"]["progressDeadlineSeconds"] > probe["failureThreshold"] * probe["periodSeconds"]


def test_every_key_is_in_the_reference() -> None:
    """The README's table is of today; a key without a description stops the script that makes it."""
    script = [sys.executable, str(ROOT / "e2e" / "lint" / "chart_values.py")]
    assert subprocess.run(script, check=False).returncode == 0
    table = (CHART / "README.md").read_text(encoding="utf-8")
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert [name for name in defaults if f"| `{name}` |" not in table] == []
