"""What every folder of tests may use: servers that may or may not be there, and an honest list of what was not run."""

from __future__ import annotations

import os
from collections import Counter
from typing import NoReturn, Protocol

import pytest
from hypothesis import HealthCheck, settings

# A shared machine makes single examples slow; speed is measured by the benchmarks, not by Hypothesis.
settings.register_profile("callboard", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("callboard")

_ENABLE = "; run it with: "


class ServerMissing(Protocol):
    """Call it when a test's server is not there: the test is not run, or fails if this is the build machine."""

    def __call__(self, what: str, enable: str) -> NoReturn: ...


def _server_missing(what: str, enable: str) -> NoReturn:
    why = f"needs {what}{_ENABLE}{enable}"
    if os.environ.get("CI") == "true":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


@pytest.fixture(scope="session")
def server_missing() -> ServerMissing:
    """`server_missing("PostgreSQL", "sudo apt-get install postgresql")` ends a test whose server is not installed.

    The second argument is the one command that enables it. With CI=true the test fails: nothing is skipped there.
    """
    return _server_missing


@pytest.fixture(scope="session")
def elasticsearch_url(server_missing: ServerMissing) -> str:
    """URL of a real Elasticsearch. Without one the test is not run, except in CI, where that is a failure."""
    url = os.environ.get("CALLBOARD_TEST_ELASTICSEARCH")
    if not url:
        server_missing("an Elasticsearch 8 or 9", "CALLBOARD_TEST_ELASTICSEARCH=http://localhost:9200 make unit")
    return url


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the tests whose server is missing, each kind with the one command that enables it."""
    missing: Counter[tuple[str, str]] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        what, found, enable = reason.removeprefix("Skipped: ").partition(_ENABLE)
        if found:
            missing[what, enable] += 1
    if missing:
        terminalreporter.section(f"{missing.total()} tests were not run: their server is not here")
        for (what, enable), count in sorted(missing.items()):
            terminalreporter.line(f"{count:5}  {what}. Run them with:")
            terminalreporter.line(f"       {enable}")
