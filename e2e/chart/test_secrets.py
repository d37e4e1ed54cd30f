"""What the chart makes up: once, in a cluster that it can read, and nowhere else."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from chart.checks.objects import no_secret_outside_secrets
from chart.checks.pods import tuning_jobs
from chart.cluster import Cluster, cluster
from chart.rendering import VALUES, Object, kind, objects

DEVELOPMENT = VALUES["development"]
HELMS = pytest.mark.parametrize("major", [3, 4])
OIDC = (
    "--set=publicUrl=https://x.example.org",
    "--set=oidc.issuer=https://x.example.org/realms/x",
    "--set=oidc.realm.enabled=true",
    "--set=oidc.realm.adminSecret=x",
)


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster in which nothing is installed yet."""
    with cluster(tmp_path) as found:
        yield found


def generated(found: list[Object]) -> Object:
    """Return the Secret of all but the blob store."""
    (secret,) = [each for each in kind(found, "Secret") if each["metadata"]["name"].endswith("-generated")]
    return secret


def of_blobs(found: list[Object]) -> Object:
    """Return the Secret of a bundled blob store."""
    (secret,) = [each for each in kind(found, "Secret") if each["metadata"]["name"].endswith("-blobs")]
    return secret


@HELMS
def test_secrets_are_kept(there: Cluster, major: int) -> None:
    """What an install made, an upgrade finds; without the Secret all of it would be other values."""
    first = generated(there.render(*DEVELOPMENT, major=major))
    assert set(first["data"]) == {
        "key-pepper", "oidc-client-secret", "database-password", "database-url", "keycloak-admin-password",
    }  # fmt: skip
    forgotten = generated(there.render(*DEVELOPMENT, major=major))
    assert not first["data"].items() & forgotten["data"].items()
    there.put(first)
    assert generated(there.render(*DEVELOPMENT, major=major)) == first


def test_a_tuning_job_gets_the_keys_of_the_blob_store_and_no_other(there: Cluster) -> None:
    """Its pods have every entry of the Secrets that they are given."""
    found = there.render(*DEVELOPMENT, options=("--set=tuningJobs.backend=pytorchjob",))
    given = {name for _, job in tuning_jobs(found) for name in job["secrets"]}
    assert given == {of_blobs(found)["metadata"]["name"]}
    assert set(of_blobs(found)["data"]) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    there.put(of_blobs(found))
    assert of_blobs(there.render(*DEVELOPMENT)) == of_blobs(found)


def test_what_is_needed_later_is_added(there: Cluster) -> None:
    """An upgrade that asks for a login has its secret, and the pepper of the install."""
    first = generated(there.render())
    there.put(first)
    later = generated(there.render(options=OIDC))
    assert set(later["data"]) - set(first["data"]) == {"oidc-client-secret"}
    assert first["data"].items() <= later["data"].items()


def test_pepper_and_address_have_their_form(there: Cluster) -> None:
    """The gateway takes 32 characters or more; the database's address has its password."""
    data = {
        name: base64.b64decode(value).decode() for name, value in generated(there.render(*DEVELOPMENT))["data"].items()
    }
    assert len(data["key-pepper"]) >= 32
    assert (
        data["database-url"] == f"postgresql://hunmin:{data['database-password']}@studio-hunmin-postgresql:5432/hunmin"
    )


def test_they_stand_in_the_secret_alone(there: Cluster) -> None:
    """No other object has a copy."""
    found = there.render(*DEVELOPMENT)
    assert list(no_secret_outside_secrets(found)) == []
    kind(found, "Service")[0]["metadata"]["annotations"] = {"copy": generated(found)["data"]["key-pepper"]}
    assert list(no_secret_outside_secrets(found))


def test_none_is_made_where_all_are_given(there: Cluster) -> None:
    """With every secret given the chart has no Secret."""
    assert kind(there.render(*VALUES["existing secrets"]), "Secret") == []


def test_none_is_made_up_without_a_cluster() -> None:
    """`helm template | kubectl apply` gives pods that wait for their Secret, and none that know a public one."""
    assert "data" not in generated(objects(DEVELOPMENT))


@HELMS
def test_a_cluster_that_cannot_be_read_is_refused(there: Cluster, major: int) -> None:
    """Argo CD renders for a cluster and reads nothing of it: each rendering would make other values."""
    there.objects.clear()
    with pytest.raises(RuntimeError, match=r"gateway\.existingSecret"):
        there.render(major=major)
    assert there.render(*VALUES["existing secrets"], major=major)
