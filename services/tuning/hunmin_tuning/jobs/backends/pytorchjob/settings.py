"""What an operator says of the cluster that jobs run on. A name that is not known is refused, as in every setting."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Toleration(_Part):
    """Kubernetes' own: the taint that pods may stand."""

    key: str | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = Field(default=None, alias="tolerationSeconds")


class Mount(_Part):
    """A volume claim with what pods only read, such as base models, at the path where the service has it."""

    claim: str
    path: str = Field(pattern="^/")


class PyTorchJobSettings(_Part):
    """HUNMIN_TUNING_PYTORCHJOB, a JSON object; only `image` has no default.

    Pods read their secrets, such as the keys of the blob store, from `secrets`, or get them by `service_account`.
    """

    image: str
    image_pull_secrets: list[str] = []
    namespace: str = "default"
    kubeconfig: Path | None = None  # None: the service runs in the cluster itself
    workers: int = Field(default=1, ge=1, le=256)  # pods of a job
    processes_per_worker: int = Field(default=1, ge=1, le=64)  # one for each GPU of a pod
    resources: dict[Literal["requests", "limits"], dict[str, str | int]] = {}
    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []
    priority_class: str | None = None
    queue: str | None = None  # a LocalQueue of Kueue: jobs come suspended, and Kueue lets them in
    environment: dict[str, str] = {}
    secrets: list[str] = []  # names of Secrets, whose entries become variables
    service_account: str | None = None
    mounts: list[Mount] = []
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    max_restarts: int = Field(default=3, ge=0)  # within the cluster, after pods were lost; then it is for the queue
    grace_s: int = Field(default=60, ge=1)  # between being asked to end and being ended: time for a checkpoint
    sync_s: float = Field(default=1.0, gt=0)  # how often what a job writes is taken to the blob store
    ttl_s: int = Field(default=86_400, ge=0)  # how long an ended job is kept if the service does not come for it
    patience_s: float = Field(default=60.0, ge=0)  # how long an outage of cluster or blob store is waited out

    def tolerated(self) -> list[dict[str, Any]]:
        """Return the tolerations as Kubernetes writes them."""
        return [each.model_dump(by_alias=True, exclude_none=True) for each in self.tolerations]
