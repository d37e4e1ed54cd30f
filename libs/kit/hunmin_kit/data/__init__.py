"""PostgreSQL: a schema per service, one transaction per request, and an embedded server where none is given."""

from hunmin_kit.data.database import Database
from hunmin_kit.data.quick import NullRefused, Quick, QuickStatements
from hunmin_kit.data.session import SessionDep
from hunmin_kit.data.writing import LastingWrites

__all__ = ["Database", "LastingWrites", "NullRefused", "Quick", "QuickStatements", "SessionDep"]
