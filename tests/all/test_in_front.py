"""Another server in front, scripts of another site, an address among the names; own files."""

import gzip
import json
import random

import headers
import httpx
import pytest
import raw

ORIGIN = "https://app.example.com"
CLIP, TABLE = random.Random(1).randbytes(100_000), gzip.compress(b"a,b\n")
FILES = {"clip.mp4": CLIP, "data.csv.gz": TABLE, "places.geojson": b"{}", "en.vtt": b"WEBVTT\n"}


@pytest.fixture(scope="module")
def in_front(stack):
    files = stack.folder / "app/webapp/static/own"
    files.mkdir()
    for name, content in FILES.items():
        (files / name).write_bytes(content)
    with stack.changed(
        SERVER_NAME="localhost 127.0.0.1",
        PUBLISH_ADDRESS="127.0.0.1",
        PUBLIC_PORT="443",
        TRUSTED_PROXIES="172.16.0.0/12 192.168.0.0/16",
        CORS_ORIGINS=f"https://b.example {ORIGIN}",
    ):
        yield stack


def test_ports_are_published_on_the_address_alone(in_front):
    bindings = in_front.inspect("nginx")[0]["HostConfig"]["PortBindings"].values()
    assert [port["HostIp"] for ports in bindings for port in ports] == ["127.0.0.1"] * 2


def test_links_and_redirects_have_the_visitors_port(in_front):
    plain = f"http://localhost:{in_front.http_port}/diagnostics/echo"
    assert httpx.get(plain).headers["Location"] == "https://localhost/diagnostics/echo"
    answer = httpx.get(plain, headers={"X-Forwarded-Proto": "https"}).json()
    assert (answer["scheme"], answer["host"]) == ("https", "localhost")
    script = "from scripts import up; up.print_urls(['nginx'])"
    printed = in_front.run("python3", "-c", script).stdout
    assert printed == "https://localhost\nhttps://127.0.0.1\n"
    link = "from flask import url_for; print(url_for('static', filename='x', _external=True))"
    shell = ("flask", "--app", "wsgi", "shell")
    printed = in_front.run(
        *("docker", "exec", "-i", in_front.containers("app")[0], "sh", "-c"),
        f'echo "{link}" | {" ".join(shell)}',
    ).stdout
    assert "https://localhost/static/x" in printed


def test_a_load_balancer_checks_by_address(in_front):
    """HTTP/1.0, without Host; nobody else than a trusted proxy gets an answer."""
    address = ("127.0.0.1", in_front.http_port)
    answer = raw.exchange(raw.socket.create_connection(address), b"GET /healthz HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\nok\n")
    answer = raw.exchange(raw.socket.create_connection(address), b"GET / HTTP/1.0\r\n\r\n")
    assert answer == b""


ASKED = {
    "the address": (None, "127.0.0.1", "200"),
    "a name": ("localhost", "localhost", "200"),
    "a name of ours, without a handshake for it": (None, "localhost", "421"),
    "another address": (None, "192.0.2.1", "421"),
    "a foreign name": (None, "evil.example", "421"),
    "the address, with the handshake of a name": ("localhost", "127.0.0.1", "421"),
}


@pytest.mark.parametrize(("sni", "host", "status"), ASKED.values(), ids=ASKED)
def test_an_address_can_be_among_the_names(in_front, sni, host, status):
    request = f"GET /diagnostics/hello HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    answer = raw.exchange(raw.handshake(in_front, sni), request.encode())
    assert answer.split()[1] == status.encode()


def test_foreign_names_are_still_refused_in_the_handshake(in_front):
    with pytest.raises(OSError, match=r"(?i)unrecognized.name"):
        raw.handshake(in_front, "evil.example")


def test_the_certificate_made_here_has_the_address(in_front):
    answer = httpx.get(f"https://127.0.0.1:{in_front.https_port}/", verify=in_front.tls())
    assert answer.status_code == 200


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_scripts_of_another_site_can_read_nginxs_errors(in_front, accept):
    with in_front.client(headers={"Accept": accept}) as client:
        answer = client.request("FOOBAR", "/", headers={"Origin": ORIGIN})
        assert answer.status_code == 405
        assert answer.headers.get_list("Access-Control-Allow-Origin") == [ORIGIN]
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"
        headers.check(answer)
        for origin in ("https://evil.example", "null", f"{ORIGIN}.evil.example"):
            answer = client.request("FOOBAR", "/", headers={"Origin": origin})
            assert "Access-Control-Allow-Origin" not in answer.headers
        # What the application answers is its own.
        answer = client.get("/diagnostics/hello", headers={"Origin": ORIGIN})
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_own_files_have_the_same_type_from_nginx_and_the_application(in_front):
    get = "import urllib.request as u; print(u.urlopen('http://localhost:8000{}').headers['Content-Type'])"
    with in_front.client() as client:
        for name, content in FILES.items():
            answer = client.get(f"/static/own/{name}")
            assert answer.content == content
            alone = in_front.execute("app", "python", "-c", get.format(f"/static/own/{name}"))
            assert alone.strip().replace('"', "") == answer.headers["Content-Type"]
        assert client.get("/static/own/data.csv.gz").headers["Content-Type"] == "application/gzip"
        assert client.get("/static/own/places.geojson.gz").status_code == 404
        part = client.get(
            "/static/own/clip.mp4", headers={"Range": "bytes=99990-", "Accept-Encoding": "identity"}
        )
        assert (part.status_code, part.content) == (206, CLIP[99_990:])
        assert part.headers["Content-Type"] == "video/mp4"


def test_problem_details_of_413_can_be_read(in_front):
    with in_front.client() as client:
        answer = client.post(
            "/api/request", content=b"x" * (10 * 2**20 + 1), headers={"Origin": ORIGIN}
        )
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert json.loads(answer.text)["status"] == 413
