"""The transaction of a request, as a FastAPI dependency."""

from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_kit.data.database import Database


async def _session(request: Request) -> AsyncGenerator[AsyncSession, None]:
    database: Database = request.app.state.database()
    async with database.session() as session:
        yield session


# Scope "function": committed when the route function has returned and before the first byte of its answer is sent, so
# that a caller who got a 200 finds what it wrote, and a failed commit is an error status. A stream holds no session.
SessionDep = Annotated[AsyncSession, Depends(_session, scope="function")]
