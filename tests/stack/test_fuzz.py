"""Requests that Hypothesis makes up: no 5xx, nobody falls over, every log line is one JSON object.

test_protocol.py has the cases that are known by name.
"""

import json
import re
from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw import connect

EXAMPLES = 400

ANY = st.binary(max_size=40)
WORDS = st.sampled_from(
    [
        b"",
        b"/",
        b"/static/",
        b"/diagnostics/echo",
        b"//",
        b"/..",
        b"%00",
        b"%0d%0a",
        b"?",
        b"#",
        b"*",
    ]
)
METHODS = st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"DELETE", b"get", b"FOO"]) | ANY
TARGETS = st.lists(WORDS | ANY, max_size=4).map(b"".join)
VERSIONS = st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.", b""]) | ANY
NAMES = (
    st.sampled_from(
        b"Host Content-Length Transfer-Encoding Connection Expect Range Accept Cookie"
        b" X-Forwarded-For Accept-Encoding traceparent".split()
    )
    | ANY
)
VALUES = (
    st.sampled_from(
        b"localhost 0 5 -1 99999999999 chunked close keep-alive 100-continue bytes=0-1,1-2 gzip"
        b" */* Upgrade a=b;a=c".split()
    )
    | ANY
)
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b""])
COLONS = st.sampled_from([b": ", b": ", b":", b" : ", b"", b"\t:"])
HEADERS = st.lists(st.tuples(NAMES, COLONS, VALUES, ENDS).map(b"".join), max_size=8)
BODIES = (
    st.sampled_from([b"", b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n", b"hello", b"5;x\nhello\r\n"])
    | ANY
)

REQUESTS = st.builds(
    lambda method, target, version, end, host, headers, body: b"".join(
        [method, b" ", target, b" ", version, end, host, *headers, b"\r\n", body]
    ),
    METHODS,
    TARGETS,
    VERSIONS,
    ENDS,
    st.sampled_from([b"Host: localhost\r\n", b"Host: localhost\r\n", b""]),
    HEADERS,
    BODIES,
)


@pytest.fixture(scope="module")
def tls(stack):
    """The client's settings; afterwards the processes must be the same, and the logs whole."""

    def processes() -> tuple[set[int], str]:
        return set(stack.children("nginx")), stack.inspect("app")[0]["State"]["StartedAt"]

    since, before = datetime.now(UTC).isoformat(), processes()
    yield stack.tls()
    after = processes()
    # One may be missing: nginx's loader of the cache ends after a minute.
    assert after[0] <= before[0]
    assert after[1] == before[1]
    with stack.client() as client:
        last = client.get("/diagnostics/hello").headers["X-Request-ID"]
    statuses = Counter()
    for service in ("nginx", "app"):
        assert stack.lines_of(last, service)
        for container in stack.containers(service):
            for line in map(json.loads, stack.stdout(container, since)):
                statuses[service, line.get("http", {}).get("response", {}).get("status_code")] += 1
    # Whether the client has waited for them or not.
    assert sum(n for (service, _), n in statuses.items() if service == "nginx") > EXAMPLES / 2
    assert not [key for key in statuses if key[1] in (500, 502, 503, 504)]


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    # The stack stays the same for all examples.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(request=REQUESTS)
def test_nothing_that_a_client_sends_is_an_error_of_ours(stack, tls, request):
    answer = b""
    with connect(stack, tls) as connection:
        # Long enough for an answer; a request that is not complete waits for its rest.
        connection.settimeout(0.2)
        try:
            connection.sendall(request)
            while part := connection.recv(65536):
                answer += part
        except OSError:
            pass
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]
    assert not [status for status in statuses if status >= 500 and status not in (501, 505)]
