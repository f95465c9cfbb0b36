"""What gunicorn refuses by itself has an error page like all others, with the request id."""

import json
from http.client import HTTPResponse

import pytest
from raw import handshake

REFUSED = {
    "a control character in a header": b"GET /diagnostics/echo HTTP/1.1\r\nX-A: a\x01b\r\n",
    "bytes in the query": b"GET /diagnostics/echo?\xff\xfe HTTP/1.1\r\n",
    "for a POST": b"POST /diagnostics/echo HTTP/1.1\r\nContent-Length: 0\r\nX-A: a\x7fb\r\n",
}


@pytest.mark.parametrize("request_", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_gunicorns_refusals_have_an_error_page(stack, request_, accept):
    with handshake(stack) as connection:
        rest = f"Host: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        connection.sendall(request_ + rest.encode())
        answer = HTTPResponse(connection)
        answer.begin()
        page = answer.read().decode()
    assert answer.status == 400
    key = answer.headers["X-Request-ID"]
    assert key in page
    if accept == "application/json":
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert json.loads(page)["request_id"] == key
    else:
        assert "<!doctype html>" in page
    assert stack.lines_of(key, "nginx")[0]["http"]["response"]["status_code"] == 400
