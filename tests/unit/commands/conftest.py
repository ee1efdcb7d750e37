"""Fixtures of the command tests."""

from tests.unit.report.conftest import server

__all__ = ["server"]
