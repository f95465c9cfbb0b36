"""A load balancer in front: believed where TRUSTED_PROXIES names it, and nobody else."""

import pytest

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
    settings = {
        "TRUSTED_PROXIES": f"{gateway} 192.0.2.0/24",
        "SERVER_NAME": ".localhost",
        "HSTS": "max-age=300",
    }
    stack.write_settings(**settings)
    try:
        stack.make("up")
        yield stack
    finally:
        for name in settings:
            del stack.settings[name]
        stack.write_settings()
        stack.make("up")


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
    ("proto", "scheme"), [("http", "http"), ("https", "https"), ("x", "https")]
)
def test_the_visitors_scheme(behind_a_proxy, proto, scheme):
    with behind_a_proxy.client() as client:
        echo = client.get("/diagnostics/echo", headers={"X-Forwarded-Proto": proto}).json()
    assert echo["scheme"] == scheme


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
print(echo["remote_addr"], echo["scheme"], connection.sock.getsockname()[0])
"""
    answer = behind_a_proxy.run(
        *("docker", "run", "--rm", "--network", f"{behind_a_proxy.name}_edge"),
        *(behind_a_proxy.inspect("app")[0]["Image"], "python", "-c", script),
    )
    address, scheme, own = answer.stdout.split()
    assert (address, scheme) == (own, "https")


def test_hsts_when_it_is_set(behind_a_proxy):
    with behind_a_proxy.client() as client:
        for path in ("/diagnostics/hello", "/nowhere", "/metrics", behind_a_proxy.style_sheet()):
            assert client.get(path).headers.get_list("Strict-Transport-Security") == ["max-age=300"]
