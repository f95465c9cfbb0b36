"""Secrets and control characters that a client sends reach no person who reads the logs."""

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from clone import wait_until
from raw import handshake

SECRETS = ["QUERYSECRET", "REFERERSECRET"]
# Too large: nginx refuses it before any limit, and writes a line.
REFUSED = (
    b"POST /%s?password=QUERYSECRET HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    b"Referer: https://x/?token=REFERERSECRET\x1b[2K\x1b[1A\xc2\x9b2K\r\n"
    b"Content-Length: 99999999\r\n\r\n"
)


def status(stack, request: bytes) -> int:
    """Without waiting for the end of the connection: nginx lingers for the rest of the body."""
    with handshake(stack) as connection:
        connection.sendall(request)
        return int(connection.recv(65536).split()[1])


def error_lines(stack) -> list[str]:
    (container,) = stack.containers("nginx")
    # Not splitlines(), which takes control characters for ends of lines.
    return stack.run("docker", "logs", container).stderr.split("\n")[:-1]


def lines_with(stack, word: str) -> list[str]:
    return [line for line in error_lines(stack) if word in line]


def assert_harmless(lines: list[str]) -> None:
    for line in lines:
        assert re.fullmatch(r"[\x20-\x7e]*", line)
        assert not [secret for secret in SECRETS if secret in line]


def test_a_refused_request_leaves_no_secret(stack):
    assert status(stack, REFUSED % b"refused") == 413
    (line,) = wait_until(lambda: lines_with(stack, "/refused?"), 5, "the line")
    assert 'request: "POST /refused?password=*** HTTP/1.1"' in line
    assert 'referrer: "https://x/?token=***"' in line
    assert_harmless([line])


@pytest.mark.parametrize("open_", [b"[x", b"%22x", b'"x', b"{x"])
def test_a_form_that_is_not_closed_ends_with_its_line(stack, open_):
    """Or the next line, somebody else's, would become a part of this one."""
    for name in (b"first", b"second"):
        request = REFUSED % (name + open_.hex().encode())
        assert status(stack, request.replace(b"password=QUERYSECRET", b"token=" + open_)) == 413
    for name in ("first", "second"):
        wanted = f"/{name}{open_.hex()}"
        (line,) = wait_until(lambda wanted=wanted: lines_with(stack, wanted), 5, "the line")
        assert re.match(r"\d{4}/\d\d/\d\d ", line)


@contextmanager
def nobody_at_home(stack):
    """nginx sends requests to a port on which nobody listens (nginx/upstream.sh)."""
    stack.execute("nginx", "sh", "-c", "echo 127.0.0.1:8000 >/tmp/upstream")
    try:
        yield
    finally:
        stack.execute("nginx", "sh", "-c", "rm /tmp/upstream")


def test_an_unreachable_application_leaves_no_secret(stack):
    request = REFUSED.replace(b"POST", b"GET").replace(b"Content-Length: 99999999\r\n", b"")
    with nobody_at_home(stack):
        assert status(stack, request % b"unreachable") == 502
    lines = wait_until(lambda: lines_with(stack, "/unreachable?"), 5, "the line")
    assert "Connection refused" in lines[0]
    assert '127.0.0.1:8000/unreachable?password=***"' in lines[0]
    assert_harmless(lines)


FILTER = "for p in /proc/[0-9]*; do grep -aq 'bin/mas[k]' $p/cmdline && echo ${p#/proc/}; done; :"


def test_a_dying_filter_loses_no_line_uncounted(stack):
    """Killed again and again under a flood of error lines."""

    def flood(number: int) -> None:
        for turn in range(25):
            assert status(stack, REFUSED % (b"flood-%d-%d-" % (number, turn))) == 413

    before = stack.inspect("nginx")[0]["State"]
    kills = 0
    with ThreadPoolExecutor(8) as pool:
        floods = [pool.submit(flood, number) for number in range(8)]
        while not all(one.done() for one in floods):
            found = stack.execute("nginx", "sh", "-c", FILTER).split()
            for process in found:
                stack.execute("nginx", "sh", "-c", f"kill -9 {process}", check=False)
                kills += 1
        for one in floods:
            one.result()
    assert kills > 1
    marker = b"after-the-flood"
    assert status(stack, REFUSED % marker) == 413
    wait_until(lambda: lines_with(stack, marker.decode()), 10, "the last line")
    arrived = {found[0] for found in re.finditer(r"flood-\d+-\d+-", "".join(error_lines(stack)))}
    ended = lines_with(stack, "the filter of this log ended (signal 9), one line may be lost")
    assert 0 <= 8 * 25 - len(arrived) <= len(ended) <= kills
    assert_harmless(error_lines(stack))
    after = stack.inspect("nginx")[0]["State"]
    assert (after["StartedAt"], after["Pid"]) == (before["StartedAt"], before["Pid"])


def test_nginx_ends_with_its_exit_code_and_all_lines(stack):
    assert status(stack, REFUSED % b"last-line") == 413
    stack.compose("stop", "nginx")
    try:
        state = stack.inspect("nginx")[0]["State"]
        assert state["ExitCode"] == 0
        assert lines_with(stack, "/last-line?")
    finally:
        stack.start("nginx")


SECRET_QUERIES = [
    "a=1&password=x", "user%5Bpass%5D=x", "x=%2F%3Fapi_key%253Dx", "code=4/0AX4Xf",
    "session=abc123", "sig=ab12cd34", "PHPSESSID=x", "next=https://u:p@host/",
    "q=%7B%22jwt%22%3A%22x%22%7D", "otp=123456&b=",
]  # fmt: skip
OTHER_QUERIES = ["a=1&page=2", "code=404", "passed=1", "zip_code=123456", "q=a%20b", "pwd="]


@pytest.mark.parametrize("query", SECRET_QUERIES + OTHER_QUERIES)
def test_access_lines_of_nginx_and_application_agree(stack, client, query):
    """By one table: of what the application masks a part, nginx masks all."""
    key = client.get(f"/diagnostics/echo?{query}").headers["X-Request-ID"]
    shown = {
        service: stack.lines_of(key, service)[0]["url"]["query"] for service in ("nginx", "app")
    }
    if query in SECRET_QUERIES:
        assert shown["nginx"] == "[masked]"
        assert "***" in shown["app"]
    else:
        assert shown == {"nginx": query, "app": query}
