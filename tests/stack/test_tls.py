"""TLS at the edge, and who is let in: checked as a client would, over the published ports."""

import socket
import ssl

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from raw import exchange, handshake


def test_certificate_names_the_host(stack):
    certificate = x509.load_pem_x509_certificate(stack.certificate.encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "localhost" in names.get_values_for_type(x509.DNSName)
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    # Browsers refuse more than 398 days.
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days <= 398


def test_a_strict_client_takes_the_certificate(stack):
    """As Python is from 3.13 on."""
    context = ssl.create_default_context(cadata=stack.certificate)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with (
        socket.create_connection(("127.0.0.1", stack.https_port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        assert connection.version()


def test_certificate_survives_a_new_container(stack):
    before = stack.certificate
    stack.make("down")
    stack.make("up")
    assert stack.certificate == before


def test_a_supplied_certificate_is_served_and_left_alone(stack):
    """With the modes of .env.example: readable for all, below a folder that nobody may enter."""
    folder = stack.folder / "own certificates"
    folder.mkdir(mode=0o755)
    stack.folder.chmod(0o700)
    own = {name: stack.execute("nginx", "sh", "-c", command) for name, command in OWN_PAIR.items()}
    for name, content in own.items():
        (folder / name).write_text(content)
        (folder / name).chmod(0o644)
    with stack.changed(CERTIFICATES="./own certificates"):
        served = ssl.get_server_certificate(("localhost", stack.https_port))
        assert served.strip() == own["fullchain.pem"].strip()
        stack.make("up")
        assert {name: (folder / name).read_text() for name in own} == own


# Made by the container's openssl, since a host need not have one.
OWN_PAIR = {
    "privkey.pem": "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"
    " | tee /tmp/own.key",
    "fullchain.pem": "openssl req -x509 -key /tmp/own.key -subj /CN=localhost -days 30"
    " -addext subjectAltName=DNS:localhost; rm /tmp/own.key",
}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_current_versions(stack, version):
    with handshake(stack, minimum_version=version, maximum_version=version) as connection:
        assert connection.version() == version.name.replace("_", ".")


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_versions_are_refused(stack, version):
    wanted = ssl.TLSVersion[version]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    # Security level 0 lets this client offer what today's OpenSSL no longer does by default.
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = wanted
    plain = socket.create_connection(("127.0.0.1", stack.https_port), timeout=5)
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        context.wrap_socket(plain, server_hostname="localhost")


# With a certificate of this kind, so that nothing but the list of ciphers refuses them.
WEAK = ["ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA", "ECDHE-ECDSA-AES256-SHA384"]


@pytest.mark.parametrize("cipher", WEAK)
def test_weak_ciphers_are_refused(stack, cipher):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{cipher}:@SECLEVEL=0")
    plain = socket.create_connection(("127.0.0.1", stack.https_port), timeout=5)
    with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
        context.wrap_socket(plain, server_hostname="localhost")


def test_post_quantum_key_exchange(stack):
    """nginx's own image has an OpenSSL that knows it; this machine's may not."""
    answer = stack.execute(
        *("nginx", "sh", "-c"),
        "openssl s_client -connect 127.0.0.1:8443 -servername localhost"
        " -groups X25519MLKEM768 </dev/null 2>&1",
    )
    assert "X25519MLKEM768" in answer
    assert "TLSv1.3" in answer


def test_http2(stack):
    with stack.client(http2=True) as client:
        assert client.get("/diagnostics/hello").http_version == "HTTP/2"


@pytest.mark.parametrize("name", ["example.org", None])
def test_unknown_server_names_get_no_handshake(stack, name):
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        handshake(stack, name)


FOREIGN_HOSTS = {
    "foreign": b"GET / HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n",
    "absent": b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
    "twice": b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: example.org\r\nConnection: close\r\n\r\n",
    "absolute": b"GET https://example.org/ HTTP/1.1\r\nHost: localhost\r\n"
    b"Connection: close\r\n\r\n",
    "1.0": b"GET / HTTP/1.0\r\n\r\n",
}


# By TLS and without; None: closed without a response.
STATUSES = {
    "foreign": (b"421", None),
    "absent": (None, None),
    "twice": (b"400", b"400"),
    "absolute": (b"421", None),
    "1.0": (b"421", None),
}


@pytest.mark.parametrize("name", FOREIGN_HOSTS)
def test_foreign_hosts_get_no_page(stack, name):
    plain = socket.create_connection(("127.0.0.1", stack.http_port), timeout=5)
    answers = [
        exchange(connection, FOREIGN_HOSTS[name]) for connection in (handshake(stack), plain)
    ]
    statuses = tuple(answer.split()[1] if answer else None for answer in answers)
    assert statuses == STATUSES[name]
    assert b"example.org" not in b"".join(answers)


FOR_NOBODY = {
    "foreign": FOREIGN_HOSTS["foreign"],
    "absent": FOREIGN_HOSTS["absent"],
    "long": b"GET /%s HTTP/1.1\r\nHost: example.org\r\n\r\n" % (b"x" * 9000),
}


@pytest.mark.parametrize("request_", FOR_NOBODY.values(), ids=FOR_NOBODY)
def test_plain_requests_for_nobody_are_not_answered(stack, request_):
    """Not even by an error page of nginx's own."""
    for port in (stack.http_port, stack.https_port):
        connection = socket.create_connection(("127.0.0.1", port), timeout=5)
        try:
            answer = exchange(connection, request_)
        except ConnectionResetError:  # with what it had not read
            answer = b""
        assert answer == b""


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_plain_http_redirects_and_keeps_the_port(stack, method):
    url = f"http://localhost:{stack.http_port}/some/page?with=query"
    answer = httpx.request(method, url)
    # 308 and not 301: a POST stays a POST (RFC 9110, 15.4.9).
    assert answer.status_code == 308
    assert answer.headers["Location"] == f"{stack.url}/some/page?with=query"


def test_plain_http_on_the_tls_port_is_redirected(stack):
    answer = httpx.post(f"http://localhost:{stack.https_port}/some/page?with=query")
    assert answer.status_code == 308
    assert answer.headers["Location"] == f"{stack.url}/some/page?with=query"
