"""Fixtures of the command tests."""

from tests.unit.report.conftest import coarse_pictures, server

__all__ = ["coarse_pictures", "server"]
