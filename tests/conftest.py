"""Fixtures that every folder of tests may use."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# A shared machine makes single examples slow; speed is measured by the benchmarks, not by Hypothesis.
settings.register_profile("callboard", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("callboard")


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
