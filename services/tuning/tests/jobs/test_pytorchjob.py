"""What a cluster is asked for, what goes on in a pod, and a real training by two pods that lose one another."""

import asyncio
import json
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hunmin_contracts.errors import HunminError
from hunmin_contracts.ids import JobId
from hunmin_contracts.tuning import Hyperparameters, TuningResult, TuningTemplate
from hunmin_kit.blobs import Blobs, FolderBlobs
from hunmin_modeling.testing import save_tiny_checkpoint
from hunmin_tuning.jobs.backends.backend import LOG, Gone, Running
from hunmin_tuning.jobs.backends.pytorchjob.manifest import FOLDER, manifest, trainer_command
from hunmin_tuning.jobs.backends.pytorchjob.mirror import CHECKPOINT, Index, Mirror
from hunmin_tuning.jobs.backends.pytorchjob.pod import Pod
from hunmin_tuning.jobs.backends.pytorchjob.settings import PyTorchJobSettings
from hunmin_tuning.trainer.job import JobFolder, TrainerJob
from hunmin_tuning.trainer.metrics import read_metrics
from hunmin_tuning.trainer.run import run_job
from hunmin_tuning.trainer.workers import Workers
from pydantic import ValidationError

JOB = JobId("job_00c0ffee")
TRAINER = [sys.executable, "-S", str(Path(__file__).parent / "fake_trainer.py")]
STARTER = Path(__file__).parents[4] / "training" / "models" / "starter"


def body(**settings: Any) -> dict[str, Any]:
    parsed = PyTorchJobSettings.model_validate({"image": "registry/trainer:1", **settings})
    return manifest(JOB, parsed, blobs_url="s3://bucket/hunmin", command=trainer_command(parsed))


def pod_of(made: dict[str, Any], kind: str = "Master") -> dict[str, Any]:
    pod: dict[str, Any] = made["spec"]["pytorchReplicaSpecs"][kind]["template"]
    return pod


class TestManifest:
    def test_has_a_pod_for_each_worker_and_one_name_for_each_job(self):
        made = body(workers=3, processes_per_worker=8)
        replicas = made["spec"]["pytorchReplicaSpecs"]
        assert made["metadata"]["name"] == "hunmin-job-00c0ffee"
        assert [replicas["Master"]["replicas"], replicas["Worker"]["replicas"]] == [1, 2]
        assert made["spec"]["nprocPerNode"] == "8"
        assert "torch.distributed.run" in pod_of(made)["spec"]["containers"][0]["args"]
        assert pod_of(made, "Worker")["metadata"]["labels"]["hunmin.dev/tuning-job"] == JOB

    def test_goes_where_gpus_are(self):
        taint = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        spec = pod_of(
            body(resources={"limits": {"nvidia.com/gpu": 1}}, node_selector={"pool": "gpu"}, tolerations=[taint])
        )["spec"]
        assert spec["nodeSelector"] == {"pool": "gpu"}
        assert spec["tolerations"] == [taint]
        assert spec["containers"][0]["resources"] == {"limits": {"nvidia.com/gpu": 1}}

    def test_waits_for_kueue_where_there_is_a_queue(self):
        queued, free = body(queue="tuning"), body()
        assert queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "tuning"
        assert queued["spec"]["runPolicy"]["suspend"] is True
        assert free["spec"]["runPolicy"]["suspend"] is False
        assert "kueue.x-k8s.io/queue-name" not in free["metadata"]["labels"]

    def test_takes_no_sidecar_no_token_and_no_root(self):
        pod = pod_of(body())
        assert pod["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["enableServiceLinks"] is False
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True

    def test_has_secrets_by_name_and_models_where_the_service_has_them(self):
        spec = pod_of(body(secrets=["s3"], mounts=[{"claim": "models", "path": "/models"}]))["spec"]
        assert spec["containers"][0]["envFrom"] == [{"secretRef": {"name": "s3"}}]
        assert {"name": "mount-0", "mountPath": "/models", "readOnly": True} in spec["containers"][0]["volumeMounts"]

    @pytest.mark.parametrize(
        "wrong",
        [{"gpus": 1}, {"workers": 0}, {"tolerations": [{"taint": "a"}]}, {"resources": {"limit": {}}}],
    )
    def test_refuses_settings_that_it_does_not_know(self, wrong: dict[str, Any]):
        with pytest.raises(ValidationError):
            body(**wrong)


class Slow(FolderBlobs):
    """A store that does something before each put."""

    def __init__(self, folder: Path, before: Callable[[str], None]) -> None:
        super().__init__(folder)
        self._before = before

    async def put(self, key: str, content: bytes | memoryview) -> None:
        self._before(key)
        await super().put(key, content)


class TestMirror:
    def make(self, blobs: Blobs, folder: Path) -> Mirror:
        folder.mkdir(exist_ok=True)
        return Mirror(blobs, JOB, folder, patience_s=0)

    async def test_never_has_a_checkpoint_without_its_metrics_nor_a_result_without_its_soft_prompt(
        self, tmp_path: Path
    ):
        """Whatever moment a copy breaks off at, one can go on from what is there."""
        folder, store = tmp_path / "job", tmp_path / "blobs"

        def write(step: int) -> None:  # as the trainer does, in its order
            with (folder / "metrics.jsonl").open("a") as metrics:
                metrics.write(f"{step}\n")
            for name in ("checkpoint.json", "soft_prompt", "result.json"):
                (folder / f"{name}.part").write_text(str(step))
                (folder / f"{name}.part").replace(folder / name)

        for puts in range(5):
            steps = iter(range(2, 9))
            left = [puts]

            def before(_: str, steps=steps, left=left) -> None:
                write(next(steps))  # it goes on while it is copied
                left[0] -= 1
                if left[0] < 0:
                    raise OSError("broken off")

            shutil.rmtree(store, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)
            mirror = self.make(FolderBlobs(store), folder)
            write(1)
            await mirror.push(Index())
            broken, index = self.make(Slow(store, before), folder), await mirror.index()
            with pytest.raises(HunminError, match="broken off"):
                await broken.push(index)
            there = tmp_path / f"there-{puts}"
            await self.make(FolderBlobs(store), there).pull()
            found = {path.name: int(path.read_text().split()[-1]) for path in there.iterdir()}
            assert found["metrics.jsonl"] >= found["checkpoint.json"] >= 1
            assert found["soft_prompt"] >= found["result.json"]

    async def test_leaves_the_checkpoint_where_it_is_until_someone_goes_on_from_it(self, tmp_path: Path):
        blobs = FolderBlobs(tmp_path / "blobs")
        pod, service, other = (self.make(blobs, tmp_path / name) for name in ("pod", "service", "other"))
        (tmp_path / "pod" / "checkpoint").mkdir()
        (tmp_path / "pod" / "checkpoint" / "state").write_text("1")
        await pod.push(Index())
        index = await service.pull(leave=CHECKPOINT)
        assert not (tmp_path / "service" / "checkpoint").exists()
        await service.push(index)
        await other.pull()
        assert (tmp_path / "other" / "checkpoint" / "state").read_text() == "1"


class TestPod:
    """The pod's part with a process of this machine, and a folder for a blob store."""

    @pytest.fixture
    def start(self, tmp_path: Path) -> Callable[..., Any]:
        async def run(rank: int = 0, workers: int = 1, *, term_after_s: float | None = None, **plan: object) -> int:
            service, folder = tmp_path / "service", tmp_path / f"pod-{rank}"
            service.mkdir(exist_ok=True)
            folder.mkdir(exist_ok=True)
            (service / "plan.json").write_text(json.dumps(plan))
            theirs, mine = (
                Mirror(FolderBlobs(tmp_path / "blobs"), JOB, each, patience_s=0) for each in (service, folder)
            )
            await theirs.push(await theirs.index())
            pod = Pod(mine, folder, rank=rank, workers=workers, restarts=2, every_s=0.05)
            if term_after_s is not None:
                asyncio.get_running_loop().call_later(term_after_s, pod.ask_to_end)
            return await pod.run(TRAINER)

        return run

    @pytest.fixture
    def index(self, tmp_path: Path) -> Callable[[], Any]:
        return Mirror(FolderBlobs(tmp_path / "blobs"), JOB, tmp_path / "service", patience_s=0).index

    @pytest.mark.parametrize("code", [0, 2, 3, 77])
    async def test_alone_it_leaves_what_follows_to_the_queue(self, start, index, code: int):
        assert await start(exit=code) == code
        assert (await index()).exit_code == code

    async def test_alone_it_leaves_a_crash_to_the_queue(self, start, index):
        assert await start(crash_at=[1]) == 127  # less than 128: the operator must not start it again
        assert (await index()).exit_code == 128 + signal.SIGKILL

    @pytest.mark.parametrize(("code", "status"), [(0, 0), (2, 2), (3, 138), (1, 138)])
    async def test_the_first_of_several_says_how_the_job_ended(self, start, index, code: int, status: int):
        assert await start(0, 2, exit=code) == status
        assert (await index()).exit_code == code

    @pytest.mark.parametrize(("code", "status"), [(0, 0), (2, 0), (3, 138), (1, 138)])
    async def test_the_others_never_end_the_job(self, start, index, code: int, status: int):
        assert await start(1, 2, exit=code) == status
        assert (await index()).exit_code is None

    async def test_the_first_of_several_knows_a_wrong_job_though_torchrun_does_not_say_so(self, start, index):
        assert await start(0, 2, error={"code": "invalid_request", "message": "No."}, exit=1) == 2
        assert (await index()).exit_code == 2

    async def test_gives_up_after_so_many_starts_that_came_to_nothing(self, start, index):
        assert [await start(0, 2, exit=1) for _ in range(4)] == [138, 138, 1, 1]
        assert (await index()).starts == 3

    async def test_does_not_count_the_ends_that_another_pod_s_deletion_brought(self, start, index):
        for _ in range(5):
            assert await start(0, 2, exit=3) == 138
        assert (await index()).starts == 0

    async def test_asked_to_end_it_leaves_a_checkpoint_and_is_made_anew(self, start, index):
        assert await start(steps=10_000, step_s=0.01, term_after_s=0.8) == 143
        found = await index()
        assert found.exit_code == 3
        assert {"checkpoint.json", "metrics.jsonl", LOG} <= found.files.keys()


TEMPLATE = TuningTemplate(
    prompt="<|VIRTUAL_PROMPT_0|>리뷰: {text}\n감정:", answer="{label}", verbalizers={"1": " 긍정", "0": " 부정"}
)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., JobFolder]:
    """Write the folder of a real job, with its model in it."""

    def write(name: str, *, model_folder: str, epochs: int) -> JobFolder:
        folder = tmp_path / name
        folder.mkdir()
        save_tiny_checkpoint(folder / "model", "llama", vocab_size=8192, context_length=64)
        for file in ("hunmin_tokenizer.json", "tokenizer.json", "lexicon.txt"):
            shutil.copy(STARTER / file, folder / "model")
        job = TrainerJob(
            template=TEMPLATE,
            model_folder=Path(model_folder.format(folder=folder)),
            hyperparameters=Hyperparameters(
                slots=[4], epochs=epochs, batch_size=16, learning_rate=1e-2, patience=None, dtype="float32"
            ),
            threads=1,
            steps_per_checkpoint=10,
        )
        (folder / "job.json").write_text(job.model_dump_json(), encoding="utf-8")
        splits = ["train"] * 64 + ["validation"] * 16 + ["test"] * 16
        rows = [
            {
                "line": n,
                "split": split,
                "fields": {"text": f"{n}번째 {'최고다' if n % 2 else '지루하다'}", "label": str(n % 2)},
            }
            for n, split in enumerate(splits)
        ]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return JobFolder(folder)

    return write


def steps_of(files: JobFolder) -> list[Any]:
    """The steps in a job's metrics, as they stand there."""
    return [line for line in read_metrics(files.metrics) if line.kind == "step"]


@pytest.mark.timeout(900)
class TestTwoPods:
    EPOCHS = 30

    async def wait(self, backend: Any, files: JobFolder, step: int) -> None:
        """Wait until the service has seen that step."""
        while not (lines := read_metrics(files.metrics)) or lines[-1].step < step:
            assert await backend.poll(JOB, files.job.parent) == Running()
            await asyncio.sleep(0.2)

    async def end(self, backend: Any, files: JobFolder) -> Gone:
        while isinstance(status := await backend.poll(JOB, files.job.parent), Running):  # noqa: ASYNC110
            await asyncio.sleep(0.3)
        return status

    async def test_learn_what_one_process_does_though_each_is_deleted_once(self, cluster, make):
        alone = make("alone", model_folder="{folder}/model", epochs=self.EPOCHS)
        await asyncio.to_thread(run_job, alone, Workers(), lambda: False)
        files = make("job", model_folder=f"{FOLDER}/model", epochs=self.EPOCHS)
        backend = cluster.backend(workers=2, environment={"OMP_NUM_THREADS": "1"}, grace_s=20)
        try:
            await backend.start(JOB, files.job.parent)
            await self.wait(backend, files, 5)
            cluster.delete_pod(JOB, "worker")
            await self.wait(backend, files, 30)
            cluster.delete_pod(JOB, "worker", grace_period_seconds=0)  # without a word
            await self.wait(backend, files, 60)
            cluster.delete_pod(JOB, "master")
            assert await self.end(backend, files) == Gone(0)
            # Two sum in another order than one, and the last bits grow apart: 1.2 % at step 110 was measured.
            ours, theirs = steps_of(alone), steps_of(files)
            assert [line.step for line in theirs] == list(range(1, 4 * self.EPOCHS + 1))
            assert [line.loss for line in theirs] == pytest.approx([line.loss for line in ours], rel=0.05)
            assert [line.loss for line in theirs[:30]] == pytest.approx([line.loss for line in ours[:30]], rel=1e-4)
            assert TuningResult.model_validate_json(files.result.read_bytes()).steps == 4 * self.EPOCHS
            assert files.soft_prompt.exists()
        finally:
            await backend.stop(JOB, files.job.parent)
            await backend.forget(JOB, files.job.parent)
        assert cluster.pods(JOB) == []

    async def test_are_cancelled_by_deletion_and_go_on_later(self, cluster, make):
        files = make("job", model_folder=f"{FOLDER}/model", epochs=1000)
        backend = cluster.backend(workers=2, environment={"OMP_NUM_THREADS": "1"}, grace_s=20)
        try:
            await backend.start(JOB, files.job.parent)
            await self.wait(backend, files, 5)
            assert len(cluster.pods(JOB)) == 2
            await backend.stop(JOB, files.job.parent)
            assert cluster.pods(JOB) == []
            assert await backend.poll(JOB, files.job.parent) == Gone(3)
            last = read_metrics(files.metrics)[-1].step
            assert not files.checkpoint.exists()  # it is with the blobs
            await backend.start(JOB, files.job.parent)
            await self.wait(backend, files, last + 5)
            assert [line.step for line in steps_of(files)][:last] == list(range(1, last + 1))
        finally:
            await backend.stop(JOB, files.job.parent)
            await backend.forget(JOB, files.job.parent)

    async def test_wait_suspended_until_the_queue_lets_them_in(self, cluster, tmp_path: Path):
        shutil.copy(TRAINER[-1], tmp_path)
        (tmp_path / "plan.json").write_text(json.dumps({"steps": 3}))
        backend = cluster.backend(["python", "-S", f"{FOLDER}/fake_trainer.py"], queue="tuning", workers=2)
        try:
            await backend.start(JOB, tmp_path)
            await asyncio.sleep(3)
            assert await backend.poll(JOB, tmp_path) == Running()
            assert cluster.pods(JOB) == []
            cluster.admit(JOB)
            assert await self.end(backend, JobFolder(tmp_path)) == Gone(0)
        finally:
            await backend.stop(JOB, tmp_path)
            await backend.forget(JOB, tmp_path)
