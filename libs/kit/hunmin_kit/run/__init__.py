"""Runs services: one process or many, the same code. Chooses every adapter, so that no service asks where it runs."""

from hunmin_kit.run.errors import StartError
from hunmin_kit.run.platform import Platform
from hunmin_kit.run.service import Service
from hunmin_kit.run.settings import Settings

__all__ = ["Platform", "Service", "Settings", "StartError"]
