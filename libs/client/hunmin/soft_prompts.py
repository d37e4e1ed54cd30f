"""`client.soft_prompts`: the account's soft prompts, by name and version."""

import io
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
from hunmin_contracts.page import Page
from hunmin_contracts.peft import CONFIG_FILE, NOTE_FILE, WEIGHTS_FILE
from hunmin_contracts.soft_prompts import CompareBody, SoftPromptComparison, SoftPromptInfo

from hunmin.call import Call, Pages, content, model, nothing, segment
from hunmin.resource import Resource, SenderT, iterates, sends


class SoftPrompts(Resource[SenderT]):
    """The soft prompts of the account. A reference is `name@version`, or `name` for its promoted version.

    Until a version of a name is promoted, the name means the newest.
    """

    @sends
    def upload(
        self,
        file: bytes | str | os.PathLike[str],
        *,
        name: str,
        model: str,
        template: str | None = None,
        slots: Sequence[int] | None = None,
    ) -> Call[SoftPromptInfo]:
        """Keep a soft prompt as the next version of `name`, for the base model `model`.

        `file` is a safetensors file as bytes or by its path, or the folder of a PEFT adapter (prompt tuning, p-tuning).
        `template` and `slots` stand in for what the file does not say itself.
        """
        weights, config = _read(file)
        form = {"name": name, "model": model}
        if template is not None:
            form["template"] = template
        if slots is not None:
            form["slots"] = f"[{','.join(map(str, slots))}]"
        files = {"file": (WEIGHTS_FILE, weights)} | ({"config": (CONFIG_FILE, config)} if config else {})
        # Sent twice it would be two versions.
        return Call("POST", "soft-prompts", _info, form=form, files=files, is_repeatable=False)

    @iterates
    def list(self, *, name: str | None = None, page_size: int | None = None) -> Pages[SoftPromptInfo]:
        """Iterate over the soft prompts by name, newest version first."""
        query = {"name": name, "limit": page_size}
        read = model(Page[SoftPromptInfo])
        return Pages(lambda cursor: Call("GET", "soft-prompts", read, query=query | {"cursor": cursor}))

    @sends
    def get(self, reference: str) -> Call[SoftPromptInfo]:
        """Describe one version."""
        return Call("GET", f"soft-prompts/{segment(reference)}", _info)

    @sends
    def download(self, reference: str) -> Call[bytes]:
        """Return the file as it was kept: safetensors with the manifest in its metadata."""
        return Call("GET", f"soft-prompts/{segment(reference)}/file", content)

    @sends
    def export_peft(self, reference: str, folder: str | os.PathLike[str]) -> Call[Path]:
        """Write the soft prompt into `folder` as an adapter that PEFT loads, and return the folder."""
        return Call("GET", f"soft-prompts/{segment(reference)}/peft", _unpacked_into(Path(folder)))

    @sends
    def promote(self, reference: str) -> Call[SoftPromptInfo]:
        """Make the name alone mean `name@version` from the next request on, in place of the version promoted before."""
        return Call("POST", f"soft-prompts/{segment(reference)}/promote", _info)

    @sends
    def compare(self, references: Sequence[str]) -> Call[SoftPromptComparison]:
        """Put 2 to 20 soft prompts beside the first: what they were made of, and how their jobs judged them."""
        return Call("POST", "soft-prompts/compare", _comparison, body=CompareBody(references=[*references]))

    @sends
    def delete(self, reference: str, *, force: bool = False) -> Call[None]:
        """Delete one version; a name alone means the one it is served by.

        ConflictError for a promoted version, unless by `force`: requests that name it would be served another.
        """
        # By its name alone, a second request would delete the version before.
        return Call(
            "DELETE",
            f"soft-prompts/{segment(reference)}",
            nothing,
            query={"force": "true"} if force else {},
            is_repeatable="@" in reference,
        )


_info = model(SoftPromptInfo)
_comparison = model(SoftPromptComparison)


def _read(file: bytes | str | os.PathLike[str]) -> tuple[bytes, bytes | None]:
    """Return the weights, and the config of an adapter's folder."""
    if isinstance(file, bytes):
        return file, None
    path = Path(file)
    if not path.is_dir():
        return path.read_bytes(), None
    return (path / WEIGHTS_FILE).read_bytes(), (path / CONFIG_FILE).read_bytes()


def _unpacked_into(folder: Path) -> Callable[[httpx.Response], Path]:
    def unpack(response: httpx.Response) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
            note = [NOTE_FILE] if NOTE_FILE in archive.namelist() else []  # of a template that PEFT does not apply
            for name in (CONFIG_FILE, WEIGHTS_FILE, *note):  # and nothing else, whatever the archive holds
                (folder / name).write_bytes(archive.read(name))
        return folder

    return unpack
