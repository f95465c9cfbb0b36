"""A load balancer in front: believed where TRUSTED_PROXIES names it, and nobody else."""

import json
import socket

import httpx
import pytest
import raw

VISITOR, SPOOFED = "203.0.113.9", "198.51.100.6"


@pytest.fixture(scope="module")
def behind_a_proxy(stack):
    """The stack trusts the address from which this machine's requests arrive, and one more network.

    HSTS is set as well, which a site behind a load balancer has.
    """
    gateway = stack.run(
        *("docker", "network", "inspect", f"{stack.name}_edge"),
        *("--format", "{{(index .IPAM.Config 0).Gateway}}"),
    ).stdout.strip()
    trusted = f"{gateway} 192.0.2.0/24"
    with stack.changed(TRUSTED_PROXIES=trusted, SERVER_NAME=".localhost", HSTS="max-age=300"):
        yield stack


@pytest.mark.parametrize(
    ("trusted", "warned"),
    [("0.0.0.0/0", 1), ("10.0.0.0/8 GATEWAY", 1), ("GATEWAY/16", 1), ("192.0.2.0/24 ::/0", 0)],
)
def test_trusting_dockers_gateway_is_warned_of(stack, trusted, warned):
    """Requests of this machine come by it, and could forge the address of a client."""
    (nginx,) = stack.inspect("nginx")
    gateway = nginx["NetworkSettings"]["Networks"][f"{stack.name}_edge"]["Gateway"]
    answer = stack.run(
        *("docker", "exec", f"--env=TRUSTED_PROXIES={trusted.replace('GATEWAY', gateway)}"),
        *(nginx["Id"], "sh", "-c", ". /docker-entrypoint.d/05-settings.envsh"),
    )
    assert answer.stderr.count("warning: TRUSTED_PROXIES") == warned
    assert answer.stderr.count("\n") == warned


FORWARDED = {
    "one hop": (VISITOR, VISITOR),
    "two hops, both ours": (f"{VISITOR}, 192.0.2.7", VISITOR),
    "an address that the visitor made up": (f"{SPOOFED}, {VISITOR}", VISITOR),
    "one made up, two hops": (f"{SPOOFED}, {VISITOR}, 192.0.2.7", VISITOR),
    "IPv6": ("2001:db8::9", "2001:db8::9"),
}


@pytest.mark.parametrize(("header", "address"), FORWARDED.values(), ids=FORWARDED)
def test_the_visitors_address_is_everywhere(behind_a_proxy, header, address):
    with behind_a_proxy.client() as client:
        answer = client.get("/diagnostics/echo", headers={"X-Forwarded-For": header})
    echo = answer.json()
    assert echo["remote_addr"] == address
    # One address for the application, whatever came.
    assert [value for name, value in echo["headers"] if name == "X-Forwarded-For"] == [address]
    for service in ("nginx", "app"):
        line = behind_a_proxy.lines_of(answer.headers["X-Request-ID"], service)[0]
        assert line["client"]["address"] == address


@pytest.mark.parametrize(
    ("port", "proto", "status"),
    [
        *(("https", "https", 200), ("https", "x", 200), ("https", "http", 308)),
        *(("http", "https", 200), ("http", "x", 308), ("http", "http", 308), ("http", "", 308)),
        *(("http", "https, https", 200), ("http", "https, http", 308), ("http", "x, https", 308)),
    ],
)
def test_a_visitor_by_https_is_served_and_another_sent_there(behind_a_proxy, port, proto, status):
    """Whether the load balancer speaks TLS to nginx or ends it and speaks plain HTTP."""
    stack = behind_a_proxy
    address = stack.url if port == "https" else f"http://localhost:{stack.http_port}"
    with stack.client() as client:
        answer = client.get(f"{address}/diagnostics/echo", headers={"X-Forwarded-Proto": proto})
    assert answer.status_code == status
    if status == 200:
        assert answer.json()["scheme"] == "https"
    else:
        assert answer.headers["Location"] == f"{stack.url}/diagnostics/echo"


def test_plain_http_from_a_load_balancer_has_static_files_and_hides_the_rest(behind_a_proxy):
    with httpx.Client(
        base_url=f"http://localhost:{behind_a_proxy.http_port}",
        headers={"X-Forwarded-Proto": "https"},
    ) as client:
        assert client.get(behind_a_proxy.style_sheet()).status_code == 200
        assert client.get("/metrics").status_code == 404
        assert client.request("FOOBAR", "/").status_code == 405


def test_somebody_who_is_no_proxy_is_not_believed(behind_a_proxy):
    """A container beside nginx has another address than the trusted one."""
    script = f"""
import http.client, json, ssl, socket
context = ssl._create_unverified_context()
connection = http.client.HTTPSConnection("localhost", context=context)
connection.sock = context.wrap_socket(socket.create_connection(("nginx", 8443)),
                                      server_hostname="localhost")
forged = {{"X-Forwarded-For": "{SPOOFED}", "X-Forwarded-Proto": "http"}}
connection.request("GET", "/diagnostics/echo", headers=forged)
echo = json.load(connection.getresponse())
plain = http.client.HTTPConnection("nginx", 8080)
plain.request("GET", "/", headers={{"Host": "localhost", "X-Forwarded-Proto": "https"}})
own, status = connection.sock.getsockname()[0], plain.getresponse().status
print(echo["remote_addr"], echo["scheme"], own, status)
"""
    answer = behind_a_proxy.run(
        *("docker", "run", "--rm", "--network", f"{behind_a_proxy.name}_edge"),
        *(behind_a_proxy.inspect("app")[0]["Image"], "python", "-c", script),
    )
    address, scheme, own, plain = answer.stdout.split()
    assert (address, scheme, plain) == (own, "https", "308")


@pytest.mark.parametrize(("host", "status"), [("a.localhost", "200"), ("b.localhost", "421")])
def test_two_names_of_ours_share_no_connection(behind_a_proxy, host, status):
    """The name in the handshake is the one in the request; 421 makes a browser open another."""
    request = f"GET /diagnostics/hello HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    connection = raw.handshake(behind_a_proxy, "a.localhost")
    assert raw.exchange(connection, request.encode()).split()[1] == status.encode()


def test_two_names_of_ours_share_no_cached_response(behind_a_proxy):
    def identity(host: str) -> str:
        request = "GET /diagnostics/page?cache=public,max-age=30&test=names HTTP/1.1\r\n"
        request += f"Host: {host}\r\nConnection: close\r\n\r\n"
        answer = raw.exchange(raw.handshake(behind_a_proxy, host), request.encode())
        return json.loads(answer.partition(b"\r\n\r\n")[2])["id"]

    assert identity("a.localhost") == identity("a.localhost")
    assert identity("a.localhost") != identity("b.localhost")


def test_hsts_when_it_is_set(behind_a_proxy):
    with behind_a_proxy.client() as client:
        for path in ("/diagnostics/hello", "/nowhere", "/metrics", behind_a_proxy.style_sheet()):
            assert client.get(path).headers.get_list("Strict-Transport-Security") == ["max-age=300"]
        # RFC 6797, 7.2.
        plain = client.get(f"http://localhost:{behind_a_proxy.http_port}/")
        assert "Strict-Transport-Security" not in plain.headers


@pytest.fixture(scope="module")
def behind_the_proxy_protocol(behind_a_proxy):
    """The same behind a load balancer that passes TCP on."""
    with behind_a_proxy.changed(PROXY_PROTOCOL="on"):
        yield behind_a_proxy


def ask(stack, ahead: bytes, port: str) -> bytes:
    """The answer to a request for an echo on a connection that begins with `ahead`."""
    context = stack.tls()
    request = b"GET /diagnostics/echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    request += b"X-Forwarded-For: %s\r\nX-Forwarded-Proto: http\r\n\r\n" % SPOOFED.encode()
    connection = socket.create_connection(
        ("127.0.0.1", stack.https_port if port == "https" else stack.http_port), timeout=5
    )
    connection.sendall(ahead)
    if port == "https":
        connection = context.wrap_socket(connection, server_hostname="localhost")
    return raw.exchange(connection, request)


def test_the_visitors_address_by_proxy_protocol(behind_the_proxy_protocol):
    stack = behind_the_proxy_protocol
    ahead = f"PROXY TCP4 {VISITOR} 192.0.2.1 4711 443\r\n".encode()
    answer = ask(stack, ahead, "https")
    echo = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (echo["remote_addr"], echo["scheme"]) == (VISITOR, "https")
    assert stack.lines_of(echo["request_id"], "nginx")[0]["client"]["address"] == VISITOR
    assert ask(stack, ahead, "http").split()[1] == b"308"


@pytest.mark.parametrize("port", ["http", "https"])
def test_without_the_proxy_protocol_where_it_is_on_nobody_is_served(
    behind_the_proxy_protocol, port
):
    try:
        answer = ask(behind_the_proxy_protocol, b"", port)
    except OSError:
        answer = b""
    assert answer == b""
