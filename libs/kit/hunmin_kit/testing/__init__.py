"""Services in tests: real, in this process or on real ports, each call on a fresh database."""

from hunmin_kit.testing.running import Running, running

__all__ = ["Running", "running"]
