"""The tables of the built-in provider. Made by migration.py; users.py has the statements on users and invitations,
attempts.py those on attempts."""

from sqlalchemy import ARRAY, Column, DateTime, Integer, LargeBinary, MetaData, String, Table, func

_MOMENT = DateTime(timezone=True)
METADATA = MetaData()

USERS = Table(
    "local_users",
    METADATA,
    Column("subject", String, primary_key=True),
    Column("email", String, nullable=False, unique=True),  # as it is compared: in lower case
    Column("name", String),
    Column("organizations", ARRAY(String), nullable=False),
    Column("roles", ARRAY(String), nullable=False),
    Column("password_hash", String, nullable=False),
    Column("password_changed_at", _MOMENT, nullable=False, server_default=func.now()),
    Column("created_at", _MOMENT, nullable=False, server_default=func.now()),
    Column("disabled_at", _MOMENT),
)

# Links, each valid once. One with a `subject` sets that user's password anew, one without email makes the first user.
INVITATIONS = Table(
    "local_invitations",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),
    Column("email", String),
    Column("subject", String),
    Column("organizations", ARRAY(String), nullable=False),
    Column("roles", ARRAY(String), nullable=False),
    Column("created_at", _MOMENT, nullable=False, server_default=func.now()),
    Column("expires_at", _MOMENT, nullable=False),
)

# Failed logins by address, whether or not somebody has it.
ATTEMPTS = Table(
    "local_attempts",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("locked_until", _MOMENT, nullable=False),
    Column("last_at", _MOMENT, nullable=False),
)
