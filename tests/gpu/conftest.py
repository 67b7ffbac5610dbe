"""Failures are told when they happen: a run whose time is over never gets to its end."""

import pytest


@pytest.hookimpl(trylast=True)  # after the line with the verdict
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        print(f"\n{report.longreprtext}", flush=True)
