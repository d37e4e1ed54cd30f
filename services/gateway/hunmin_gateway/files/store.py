"""The rows of files, and where their content is. The only statements on `files`."""

import re
from collections.abc import Sequence
from typing import BinaryIO, Literal

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId, FileId, ProjectId, new_file_id
from hunmin_kit.blobs import Blobs
from hunmin_kit.data import Database
from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.principal import Principal
from hunmin_gateway.tables import StoredFile
from hunmin_gateway.tenancy.reach import Reach

Purpose = Literal["batch", "batch_output"]
_ID = re.compile(r"file-batch-[0-9a-f]{24}")


def is_stored(file_id: str) -> bool:
    """Say whether an id is one of these files', by its form."""
    return _ID.fullmatch(file_id) is not None


def blob_key(file_id: str) -> str:
    """Return where the content of a file is kept."""
    return f"files/{file_id}"


async def keep(blobs: Blobs, content: BinaryIO) -> FileId:
    """Keep the content of a file that has no row yet, from where it stands; return the id that its row is to have."""
    file_id = new_file_id()
    await blobs.put_file(blob_key(file_id), content)
    return file_id


class Files:
    """Works in the session it is given; whoever opened that commits."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(
        self,
        file_id: FileId,
        *,
        account_id: AccountId,
        project_id: ProjectId,
        purpose: Purpose,
        filename: str,
        size_bytes: int,
    ) -> StoredFile:
        """Make the row of a file whose content is kept."""
        adding = insert(StoredFile).values(
            id=file_id,
            account_id=account_id,
            project_id=project_id,
            purpose=purpose,
            filename=filename,
            size_bytes=size_bytes,
        )
        return (await self._session.scalars(adding.returning(StoredFile))).one()

    async def find(self, principal: Principal, file_id: str) -> StoredFile:
        """Return a file that the principal sees; `not_found` if there is none of that id."""
        query = select(StoredFile).where(Reach.by(principal).of(StoredFile), StoredFile.id == file_id)
        found = (await self._session.scalars(query)).one_or_none()
        if found is None:
            raise no_file(file_id)
        return found

    async def list(self, principal: Principal, *, limit: int) -> Sequence[StoredFile]:
        """Return the files that the principal sees, newest first."""
        query = select(StoredFile).where(Reach.by(principal).of(StoredFile))
        newest = query.order_by(StoredFile.created_at.desc(), StoredFile.id.desc()).limit(limit)
        return (await self._session.scalars(newest)).all()

    async def stored_bytes(self, account_id: AccountId) -> int:
        """Return the bytes of all files of an account, those that batches made too."""
        total = select(func.coalesce(func.sum(StoredFile.size_bytes), 0)).where(StoredFile.account_id == account_id)
        return int(await self._session.scalar(total) or 0)

    async def delete(self, principal: Principal, file_id: str) -> None:
        """Forget a file that the principal sees; `not_found` if there is none of that id."""
        forgetting = delete(StoredFile).where(Reach.by(principal).of(StoredFile), StoredFile.id == file_id)
        if await self._session.scalar(forgetting.returning(StoredFile.id)) is None:
            raise no_file(file_id)


async def add_file(
    database: Database, blobs: Blobs, principal: Principal, *, content: BinaryIO, filename: str, size_bytes: int
) -> StoredFile:
    """Keep a file to make a batch of: first its content, then its row."""
    file_id = await keep(blobs, content)
    async with database.session() as session:
        return await Files(session).add(
            file_id,
            account_id=principal.account_id,
            project_id=principal.project_id,
            purpose="batch",
            filename=filename,
            size_bytes=size_bytes,
        )


async def delete_file(database: Database, blobs: Blobs, principal: Principal, file_id: str) -> None:
    """Delete a file: its row, and when that is gone its content."""
    async with database.session() as session:
        await Files(session).delete(principal, file_id)
    await blobs.delete(blob_key(file_id))


def no_file(file_id: str) -> HunminError:
    """Return the error that says so."""
    return HunminError(ErrorCode.NOT_FOUND, f"There is no file {file_id[:60]!r} in this account.", param="file_id")
