"""A PyTorchJob as it is sent to the cluster: a function of the job and the settings. It talks to nobody."""

from collections.abc import Sequence
from typing import Any

from hunmin_contracts.ids import JobId

from hunmin_tuning.jobs.backends.pytorchjob.settings import PyTorchJobSettings

GROUP, VERSION, PLURAL = "kubeflow.org", "v1", "pytorchjobs"
JOB_LABEL = "hunmin.dev/tuning-job"
FOLDER = "/job"  # in a pod
USER = 10001  # that of our images
_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
# A sidecar would outlive the trainer, and stand between workers that talk to each other.
_NO_SIDECAR = {"sidecar.istio.io/inject": "false", "linkerd.io/inject": "disabled"}


def name_of(job_id: JobId) -> str:
    """Return the name of the job's object: of it alone, so that any service finds it."""
    return f"hunmin-{job_id.lower().replace('_', '-')}"


def trainer_command(settings: PyTorchJobSettings) -> list[str]:
    """Return what trains, less the folder. One process reads the operator's variables itself; torchrun starts more."""
    if settings.processes_per_worker == 1:
        return ["python", "-m", "hunmin_tuning.trainer"]
    return ["python", "-m", "torch.distributed.run", "-m", "hunmin_tuning.trainer"]


def manifest(job_id: JobId, settings: PyTorchJobSettings, *, blobs_url: str, command: Sequence[str]) -> dict[str, Any]:
    """Return the object that runs `command` in every worker, each within `…pytorchjob.pod`."""
    labels = {**settings.labels, JOB_LABEL: job_id}
    queue = {} if settings.queue is None else {_QUEUE_LABEL: settings.queue}
    replica = {
        # A pod that ends with 128 or more is made anew by the operator, also one that was deleted; others end the job.
        "restartPolicy": "ExitCode",
        "template": {
            "metadata": {
                "labels": {**labels, "sidecar.istio.io/inject": "false"},
                "annotations": {**settings.annotations, **_NO_SIDECAR},
            },
            "spec": _pod(job_id, settings, blobs_url=blobs_url, command=command),
        },
    }
    replicas: dict[str, Any] = {"Master": {"replicas": 1, **replica}}
    if settings.workers > 1:
        replicas["Worker"] = {"replicas": settings.workers - 1, **replica}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "PyTorchJob",
        "metadata": {"name": name_of(job_id), "labels": {**labels, **queue}, "annotations": settings.annotations},
        "spec": {
            "nprocPerNode": str(settings.processes_per_worker),
            "runPolicy": {
                "cleanPodPolicy": "Running",  # those that ended stay for `kubectl logs` until the service has been told
                "suspend": settings.queue is not None,
                "ttlSecondsAfterFinished": settings.ttl_s,
                # No backoffLimit: with ExitCode the operator compares it with how often its own queue retried, and a
                # limit of 0 fails a job whose pod was merely deleted. `pod.py` counts the starts.
            },
            "pytorchReplicaSpecs": replicas,
        },
    }


def _pod(job_id: JobId, settings: PyTorchJobSettings, *, blobs_url: str, command: Sequence[str]) -> dict[str, Any]:
    volumes, mounts = _volumes(settings)
    options = {
        "job": job_id,
        "blobs": blobs_url,
        "folder": FOLDER,
        "every": settings.sync_s,
        "restarts": settings.max_restarts,
        "patience": settings.patience_s,
    }
    container = {
        "name": "pytorch",  # the operator's word for the one that trains
        "image": settings.image,
        "command": ["python", "-m", "hunmin_tuning.jobs.backends.pytorchjob.pod"],
        "args": [*(f"--{name}={value}" for name, value in options.items()), "--", *command],
        "env": [
            {"name": name, "value": value}
            for name, value in {"HOME": "/tmp", **settings.environment}.items()  # noqa: S108
        ],
        "envFrom": [{"secretRef": {"name": secret}} for secret in settings.secrets],
        "resources": settings.resources,
        "volumeMounts": mounts,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod: dict[str, Any] = {
        "containers": [container],
        "volumes": volumes,
        "terminationGracePeriodSeconds": settings.grace_s,
        "nodeSelector": settings.node_selector,
        "tolerations": settings.tolerated(),
        "imagePullSecrets": [{"name": secret} for secret in settings.image_pull_secrets],
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if settings.service_account is not None:
        pod["serviceAccountName"] = settings.service_account
    if settings.priority_class is not None:
        pod["priorityClassName"] = settings.priority_class
    return pod


def _volumes(settings: PyTorchJobSettings) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the volumes of a pod, and where they are in it."""
    volumes: list[dict[str, Any]] = [
        {"name": "job", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},  # the 64 MiB of a container are too few for NCCL
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "job", "mountPath": FOLDER},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  # the pod's own
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
    ]
    for number, mount in enumerate(settings.mounts):
        claim = {"claimName": mount.claim, "readOnly": True}
        volumes.append({"name": f"mount-{number}", "persistentVolumeClaim": claim})
        mounts.append({"name": f"mount-{number}", "mountPath": mount.path, "readOnly": True})
    return volumes, mounts
