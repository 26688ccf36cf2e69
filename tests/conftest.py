"""Fixtures that every folder of tests may use."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def elasticsearch_url() -> str:
    """URL of a real Elasticsearch. Without one the test is not run, except in CI, where that is a failure."""
    url = os.environ.get("CALLBOARD_TEST_ELASTICSEARCH")
    if not url:
        why = "set CALLBOARD_TEST_ELASTICSEARCH to the URL of an Elasticsearch 8 or 9 to run this test"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return url
