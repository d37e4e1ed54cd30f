"""What a database's failures mean to whoever asked for something."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from hunmin_contracts.errors import ErrorCode, HunminError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

_RETRY_AFTER_S = 1
_NUL_IN_TEXT = "22021"  # character_not_in_repertoire: valid UTF-8 that PostgreSQL cannot store
# Class 08 is a lost connection; 57P0x a server that stops or starts; 53300 one that has no connection left; 25P03 a
# transaction that was given up because nothing came.
_UNAVAILABLE_STATES = ("08", "57P", "53300", "25P03")


@contextmanager
def as_hunmin_errors() -> Iterator[None]:
    """Turn what SQLAlchemy or asyncpg raises into UNAVAILABLE, where trying again may help, or what is wrong."""
    try:
        yield
    except DBAPIError as error:
        state = str(getattr(error.orig, "sqlstate", None) or "")
        if error.connection_invalidated or state.startswith(_UNAVAILABLE_STATES):
            raise unavailable() from error
        if state == _NUL_IN_TEXT:
            raise _nul_in_text() from error
        raise
    except asyncpg.PostgresError as error:
        state = str(error.sqlstate or "")
        if state.startswith(_UNAVAILABLE_STATES):
            raise unavailable() from error
        if state == _NUL_IN_TEXT:
            raise _nul_in_text() from error
        raise
    # InternalClientError: the server's farewell and the next statement met.
    except (PoolTimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise unavailable() from error


def unavailable() -> HunminError:
    """Return the error of a database that cannot be reached."""
    return HunminError(
        ErrorCode.UNAVAILABLE, "The database cannot be reached. Try again shortly.", retry_after_s=_RETRY_AFTER_S
    )


def _nul_in_text() -> HunminError:
    return HunminError(
        ErrorCode.INVALID_PARAMETER, "A text holds the character U+0000, which cannot be stored. Remove it."
    )
