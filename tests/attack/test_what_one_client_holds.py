"""nginx lets one client hold what docs/edge.md says, and others have space beside it."""

import json
import re
from contextlib import ExitStack

import pytest
from clone import wait_until
from streams import Streams, used
from visitor import Visitor

from scripts import limits


@pytest.fixture(scope="module")
def n(attacked):
    """The settings as `make up` has checked them."""
    return limits.numbers(json.loads(attacked.compose("config", "--format", "json").stdout))


def test_uploads_and_responses_of_one_client_fit_into_tmp(attacked, n):
    path, size = "/diagnostics/echo", int(n["MAX_BODY_SIZE"])
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(Streams(attacked, "/diagnostics/page?bytes=2000000", 45))
        # The last byte never comes.
        length = {"content-length": str(size)}
        uploads = Streams(attacked, path, 10, method="POST", body=size - 1, **length)
        held.enter_context(uploads).send(30)
        wait_until(lambda: used(attacked) >= 185, 20, "both are held")
        with Visitor(attacked, ("POST", path, 5_000_000), pause=1) as visitor:
            pass
        allowed = next(rule for rule in limits.RULES if rule.limit == "NGINX_TMP").needed(n)
        assert used(attacked) * limits.MB <= allowed + 5_000_000
        # Beyond: no more.
        with attacked.client() as more:
            assert more.post(path, content=bytes(100_000)).status_code == 429
    assert {visit.status for visit in visitor.visits} == {200}


@pytest.mark.parametrize(
    ("path", "host", "limit"), [("/metrics/x", "localhost", "CONNECTION_LIMIT"), ("/", "a.b", None)]
)
def test_refused_streams_without_a_window_hold_no_memory(attacked, n, path, host, limit):
    """A response without a body needs no window (RFC 9113, 6.9), so that nginx is done with it.

    Each of those that are left holds up to 44 kB.
    """
    with ExitStack() as held:
        opened = [
            held.enter_context(Streams(attacked, path, 64, window=0, host=host)) for _ in range(4)
        ]
        for streams in opened:
            wait_until(lambda s=streams: s.take() and s.statuses.total() == 64, 20, "responses")
            while streams.take():
                pass
        assert sum(len(streams.left) for streams in opened) <= n.get(limit, 0)


def test_nginx_and_the_engine_have_the_limits_of_the_table(attacked, n):
    (nginx,) = attacked.inspect("nginx")
    host = nginx["HostConfig"]
    sizes = {folder: limits.size(text.split("=")[1]) for folder, text in host["Tmpfs"].items()}
    assert sizes["/tmp"] == n["NGINX_TMP"]  # noqa: S108
    assert sizes["/var/cache/nginx"] == n["NGINX_CACHE"]
    assert host["Memory"] == n["NGINX_MEMORY"]
    assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}
    text = attacked.execute("nginx", "nginx", "-T")

    def value(directive: str) -> float:
        (found,) = set(re.findall(rf"^ *{directive}[ :=](\w+);", text, re.M))
        return limits.size(found.removesuffix("s"))

    assert value("worker_processes") * value("worker_connections") == n["CONNECTIONS"]
    assert value("limit_conn connections") == n["CONNECTION_LIMIT"]
    assert value("limit_conn uploads") == n["UPLOAD_LIMIT"]
    assert limits.SMALL_BODY + value("proxy_max_temp_file_size") == n["REQUEST_TMP"]
    files = attacked.execute("nginx", "sh", "-c", "grep 'open files' /proc/[0-9]*/limits")
    (most,) = {int(number) for number in re.findall(r"files +(\d+)", files)}
    assert most > 3 * value("worker_connections")
