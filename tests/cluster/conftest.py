"""Shared with the tests of one server."""

from tests.serve.conftest import tiny_config

__all__ = ["tiny_config"]
