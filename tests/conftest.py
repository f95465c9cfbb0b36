"""What unit tests and stack tests share: which skips a continuous integration run may have."""

import os

import pytest

# A skipped test proves nothing, so in CI it counts as failed, unless its reason stands here.
SKIPS_ALLOWED_IN_CI = {
    # tests/stack/test_refusals.py; hosted runners are not root.
    "only root can become another user",
}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason not in SKIPS_ALLOWED_IN_CI:
            report.outcome = "failed"
            report.longrepr = (
                f"skipped in CI for a reason that tests/conftest.py does not list: {reason}"
            )
    return report
