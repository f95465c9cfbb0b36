"""What tests share: the running stack, and which skips a continuous integration run may have."""

import os
from pathlib import Path

import pytest

# So that a failed assertion in one of the modules beside this one says its values, as in a test.
HELPERS = {file.stem for file in Path(__file__).parent.glob("*.py")} - {"conftest"}
pytest.register_assert_rewrite(*HELPERS)

import load  # noqa: E402
from clone import Clone, leftovers, remove_killed  # noqa: E402
from replicas import three  # noqa: E402

# A skipped test proves nothing, so in CI it counts as failed, unless its reason stands here.
SKIPS_ALLOWED_IN_CI = {
    # tests/clone.py, require(); tests/all/test_fork.py sees that nothing was, here.
    "this part was deleted",
    # tests/stack/test_refusals.py; hosted runners are not root.
    "only root can become another user",
    # tests/attack/all/test_firewall.py; likewise.
    "only root can make network namespaces",
    # tests/logstash/test_forwarder.py; not all kernels let others attach a filter.
    "only root can make a socket drop packets",
    # tests/all/test_deploy.py; with official images there is no fallback image to refuse.
    "the base images come from a registry",
    # tests/all/test_old_tools.py; no Linux of today brings it.
    "Python 3.9 is not here",
    # tests/logstash/test_pipeline.py; its package is not declared for newer ones.
    "the grammar of pipelines is for older Pythons",
}
# Images without a fallback, which have to be there where the official ones are asked for.
if os.environ.get("BASE_IMAGES") != "registry":
    SKIPS_ALLOWED_IN_CI |= {
        # tests/prometheus/all/test_grafana.py
        "the image of Grafana is out of reach",
        # tests/logstash/test_end_to_end.py
        "the images of the logging add-on are out of reach",
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


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    """A running stack, as production but with the diagnostics pages (app/webapp/diagnostics.py),
    the application's access lines, which show what reached it, and limits that a load from one
    address does not reach.

    Its folder has a space in its name, since users' folders do.
    """
    remove_killed()
    folder = tmp_path_factory.mktemp("clone") / "a fresh clone"
    clone = Clone(folder, APP_ENV="testing", ACCESS_LOG="on", NGINX_METRICS="on", **load.LIMITS)
    try:
        clone.make("up")
        yield clone
    finally:
        clone.remove()
    assert leftovers(clone.name) == []


@pytest.fixture
def client(stack):
    """An HTTP/1.1 client of the stack over TLS."""
    with stack.client() as client:
        yield client


@pytest.fixture
def replicas(stack):
    """Three containers of the application."""
    with three(stack):
        yield stack
