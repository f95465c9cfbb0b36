"""Requests that clients should not send, byte by byte: refused, or one plain request, never two.

A case is a row of CASES. In it, SEEN is the path that may reach the application and NEVER one that
must not: a request hidden inside another. What reached it is read from the application's log.
"""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from raw import connect, exchange

LIMIT = 8 * 1024
HEAD = b"Host: localhost\r\nConnection: close\r\n"
POST, GET = b"POST SEEN HTTP/1.1\r\n" + HEAD, b"GET SEEN HTTP/1.1\r\n" + HEAD
# No `Connection: close`: the server might read on.
OPEN = b"POST SEEN HTTP/1.1\r\nHost: localhost\r\n"
# With a path of its final length, since lengths are counted.
HIDDEN = b"GET /diagnostics/echo?never000 HTTP/1.1\r\n" + HEAD + b"\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"

# name: (request, statuses it gets; 0 is a connection closed without an answer)
CASES = {
    # --- Two lengths (RFC 9112, 6.3) ---
    "CL.TE": (OPEN + b"Content-Length: 6\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN, {400}),
    "TE.CL": (OPEN + CHUNKED + b"Content-Length: 3\r\n\r\n0\r\n\r\n" + HIDDEN, {400}),
    "TE.TE": (OPEN + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN, {400}),
    "TE.TE, the second unknown": (
        OPEN + CHUNKED + b"Transfer-Encoding: x\r\n\r\n0\r\n\r\n" + HIDDEN,
        {400},
    ),
    "TE unknown": (OPEN + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN, {501}),
    "TE identity": (
        OPEN + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + HIDDEN,
        {501},
    ),
    "TE in a list": (
        OPEN + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        {501},
    ),
    "TE with a vertical tab": (
        OPEN + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        {501},
    ),
    "TE with a space before the colon": (
        OPEN + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        {400},
    ),
    "TE folded": (OPEN + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + HIDDEN, {400}),
    "TE with an underscore": (
        POST + b"Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        {200},
    ),
    "TE in HTTP/1.0": (
        b"POST SEEN HTTP/1.0\r\n" + HEAD + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
        {400},
    ),
    "two different lengths": (
        OPEN + b"Content-Length: 0\r\nContent-Length: 43\r\n\r\n" + HIDDEN,
        {400},
    ),
    "the same length twice": (
        OPEN + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx" + HIDDEN,
        {400},
    ),
    "a list of lengths": (OPEN + b"Content-Length: 1, 1\r\n\r\nx" + HIDDEN, {400}),
    "a length with a sign": (OPEN + b"Content-Length: +1\r\n\r\nx" + HIDDEN, {400}),
    "a negative length": (OPEN + b"Content-Length: -1\r\n\r\n" + HIDDEN, {400}),
    "a hexadecimal length": (OPEN + b"Content-Length: 0x1\r\n\r\nx" + HIDDEN, {400}),
    "a length with a space": (OPEN + b"Content-Length: 1 0\r\n\r\nx" + HIDDEN, {400}),
    "a length of 30 digits": (OPEN + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nx", {400}),
    "GET with a body": (GET + b"Content-Length: 4\r\n\r\nbody", {200}),
    "GET whose body is a request": (
        b"GET SEEN HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN)
        + HIDDEN
        + GET
        + b"\r\n",
        {200},
    ),
    # --- Chunks (RFC 9112, 7.1) ---
    "chunks": (POST + CHUNKED + b"\r\n4\r\nbody\r\n0\r\n\r\n", {200}),
    "chunk with an extension": (POST + CHUNKED + b"\r\n4;a=b\r\nbody\r\n0\r\n\r\n", {200}),
    "chunk with a trailer": (
        POST + CHUNKED + b"\r\n4\r\nbody\r\n0\r\nContent-Length: 9\r\n\r\n",
        {200},
    ),
    "bare LF after the chunk's size": (OPEN + CHUNKED + b"\r\n0\n\r\n" + HIDDEN, {400}),
    "bare LF after the chunk": (POST + CHUNKED + b"\r\n4\r\nbody\n0\r\n\r\n", {400}),
    "bare LF inside an extension": (
        OPEN + CHUNKED + b"\r\n2;\nxx\r\n%x\r\n0\r\n\r\n" % len(HIDDEN) + HIDDEN + b"\r\n0\r\n\r\n",
        {400},
    ),
    "chunk larger than 64 bits": (
        POST + CHUNKED + b"\r\nfffffffffffffffff\r\nx\r\n0\r\n\r\n",
        {400},
    ),
    "chunk of a negative size": (POST + CHUNKED + b"\r\n-1\r\nx\r\n0\r\n\r\n", {400}),
    "chunk with 0x": (POST + CHUNKED + b"\r\n0x4\r\nbody\r\n0\r\n\r\n", {400}),
    "chunk longer than it says": (POST + CHUNKED + b"\r\n3\r\nbody\r\n0\r\n\r\n", {400}),
    # --- Lines and names (RFC 9112, 2.2 and 5) ---
    "LF alone": (
        b"GET SEEN HTTP/1.1\nHost: localhost\nConnection: close\n\n",
        {200},
    ),
    "CR alone": (b"GET SEEN HTTP/1.1\rHost: localhost\r\r" + HIDDEN, {400}),
    "NUL in a value": (GET + b"X-A: a\x00b\r\n\r\n", {400}),
    "CR in a value": (GET + b"X-A: a\rX-B: b\r\n\r\n", {400}),
    "header without a name": (GET + b": value\r\n\r\n", {400}),
    "header without a colon": (GET + b"value\r\n\r\n", {200}),
    "header with a space in its name": (GET + b"X A: a\r\n\r\n", {400}),
    "folded header": (GET + b"X-A: a\r\n b\r\n\r\n", {400}),
    "bytes beyond ASCII in a value": (GET + b"User-Agent: \xff\xfe\xc3\x28\r\n\r\n", {200}),
    "bytes beyond ASCII in a name": (GET + b"X-\xff: a\r\n\r\n", {200}),
    "quotes and backslashes in a value": (GET + b'User-Agent: "\\"}{\\u0000\r\n\r\n', {200}),
    "names with underscores": (GET + b"Content_Length: 9\r\nX_Forwarded_For: 1\r\n\r\n", {200}),
    # --- The request line (RFC 9112, 3) ---
    "HTTP/0.9": (b"GET NEVER\r\n", {0}),
    "HTTP/1.2": (GET.replace(b"/1.1", b"/1.2") + b"\r\n", {200}),
    "HTTP/2 in the request line": (GET.replace(b"/1.1", b"/2.0") + b"\r\n", {505}),
    "HTTP/9.9": (GET.replace(b"/1.1", b"/9.9") + b"\r\n", {505}),
    "no version's number": (GET.replace(b"/1.1", b"/") + b"\r\n", {400}),
    "two requests in a line": (
        b"GET NEVER HTTP/1.1 GET NEVER HTTP/1.1\r\n" + HEAD + b"\r\n",
        {400},
    ),
    "spaces before the method": (b"  " + GET + b"\r\n", {400}),
    "empty lines before": (b"\r\n\r\n" + GET + b"\r\n", {200}),
    "absolute URI": (GET.replace(b" SEEN", b" https://localhostSEEN") + b"\r\n", {200}),
    "absolute URI of another host": (
        GET.replace(b" SEEN", b" https://example.orgNEVER") + b"\r\n",
        {421},
    ),
    "authority instead of a path": (b"GET example.org:443 HTTP/1.1\r\n" + HEAD + b"\r\n", {400}),
    "CONNECT": (b"CONNECT example.org:443 HTTP/1.1\r\n" + HEAD + b"\r\n", {405}),
    "TRACE": (GET.replace(b"GET", b"TRACE").replace(b"SEEN", b"NEVER") + b"\r\n", {405}),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\n" + HEAD + b"\r\n", {400}),
    "a fragment": (GET.replace(b"SEEN", b"SEEN#fragment") + b"\r\n", {200}),
    "%00 in the path": (b"GET /%00NEVER HTTP/1.1\r\n" + HEAD + b"\r\n", {400}),
    "a bad escape": (b"GET /%zzNEVER HTTP/1.1\r\n" + HEAD + b"\r\n", {400}),
    "invalid UTF-8 in the path": (b"GET /%ff%feSEEN HTTP/1.1\r\n" + HEAD + b"\r\n", {404}),
    "raw bytes in the path": (b"GET /\xff\xfeSEEN HTTP/1.1\r\n" + HEAD + b"\r\n", {400}),
    "CRLF in the query, escaped": (
        GET.replace(b"SEEN", b"SEEN%0d%0aSet-Cookie:%20a=b%0d%0a%0d%0aGET%20/x") + b"\r\n",
        {200},
    ),
    "CRLF in the path, escaped": (
        b"GET /%0d%0aX-A:%20b%0d%0a%0d%0aSEEN HTTP/1.1\r\n" + HEAD + b"\r\n",
        {404},
    ),
    # --- Host (RFC 9112, 3.2) ---
    "no Host": (b"GET NEVER HTTP/1.1\r\nConnection: close\r\n\r\n", {0}),
    "no Host in HTTP/1.0": (b"GET NEVER HTTP/1.0\r\n\r\n", {421}),
    "two Hosts": (GET.replace(b"SEEN", b"NEVER") + b"Host: localhost\r\n\r\n", {400}),
    "empty Host": (b"GET NEVER HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n", {400}),
    "foreign Host": (
        b"GET NEVER HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n",
        {421},
    ),
    "user in Host": (
        b"GET NEVER HTTP/1.1\r\nHost: localhost@example.org\r\nConnection: close\r\n\r\n",
        {400},
    ),
    "path in Host": (
        b"GET NEVER HTTP/1.1\r\nHost: localhost/x\r\nConnection: close\r\n\r\n",
        {400},
    ),
    "Host with a dot at its end": (
        b"GET SEEN HTTP/1.1\r\nHost: localhost.\r\nConnection: close\r\n\r\n",
        {200},
    ),
    # --- Sizes ---
    "long path": (b"GET /%s HTTP/1.1\r\n" % (b"NEVER" * LIMIT) + HEAD + b"\r\n", {414}),
    "long header": (GET.replace(b"SEEN", b"NEVER") + b"X-A: %s\r\n\r\n" % (b"a" * LIMIT), {431}),
    "long headers": (
        GET.replace(b"SEEN", b"NEVER")
        + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 4000) for n in range(9))
        + b"\r\n",
        {431},
    ),
    "many headers": (
        GET.replace(b"SEEN", b"NEVER")
        + b"".join(b"X-%d: a\r\n" % n for n in range(1100))
        + b"\r\n",
        {431},
    ),
    "more headers than gunicorn takes": (
        GET + b"".join(b"X-%d: a\r\n" % n for n in range(200)) + b"\r\n",
        {431},
    ),
    "body longer than it says": (POST + b"Content-Length: 4\r\n\r\nbody" + HIDDEN, {200}),
    # --- What belongs to the connection (RFC 9110, 7.6) ---
    "two requests in a row": (
        GET.replace(b"close", b"keep-alive") + b"\r\n" + GET + b"\r\n",
        {200},
    ),
    "Upgrade to HTTP/2": (
        GET + b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
        {200},
    ),
    "Upgrade to a web socket": (
        b"GET SEEN HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        + GET
        + b"\r\n",
        {200},
    ),
    "Connection names headers that nginx sets": (
        GET + b"Connection: X-Forwarded-For, X-Request-ID\r\n\r\n",
        {200},
    ),
    "Expect: 100-continue": (
        POST + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\nbody",
        {100, 200},
    ),
    "Expect: something else": (POST + b"Expect: x\r\nContent-Length: 0\r\n\r\n", {200}),
    "PROXY protocol, which nobody asked for": (
        b"PROXY TCP4 203.0.113.9 127.0.0.1 1 443\r\n" + GET + b"\r\n",
        {400},
    ),
    "HTTP/2 without agreeing on it": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 9, {400}),
}


@pytest.fixture(scope="module")
def outcomes(stack) -> dict[str, tuple[list[int], int, int]]:
    """For each case the statuses it got, and how often SEEN and NEVER reached the application."""

    tls = stack.tls()

    def send(case: tuple[int, str]) -> list[int]:
        number, name = case
        request = CASES[name][0]
        for word, path in {
            b"SEEN": f"/diagnostics/echo?seen{number:03}",
            b"NEVER": f"/diagnostics/echo?never{number:03}",
            b"never000": f"never{number:03}",
        }.items():
            request = request.replace(word, path.encode())
        connection = connect(stack, tls)
        # Longer than client_body_timeout, for bodies that end too early.
        connection.settimeout(20)
        try:
            answer = exchange(connection, request)
        except OSError:
            answer = b""
        return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]

    with ThreadPoolExecutor(len(CASES)) as pool:
        statuses = list(pool.map(send, enumerate(CASES)))
    with stack.client() as client:
        last = client.get("/diagnostics/hello").headers["X-Request-ID"]
    assert stack.lines_of(last, "app")
    lines = [str(line) for line in stack.log("app") if "url" in line]
    return {
        name: (
            statuses[number],
            *(
                sum(bool(re.search(rf"{word}{number:03}", line)) for line in lines)
                for word in ("seen", "never")
            ),
        )
        for number, name in enumerate(CASES)
    }


@pytest.mark.parametrize("name", CASES)
def test_refused_or_one_plain_request(outcomes, name):
    statuses, seen, never = outcomes[name]
    request, expected = CASES[name]
    assert set(statuses or [0]) == expected
    assert never == 0
    assert statuses.count(200) <= seen <= request.count(b"SEEN")
