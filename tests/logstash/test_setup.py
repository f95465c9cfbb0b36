"""What setup.py says to Elasticsearch and Kibana, whatever state they are in.

Requests are compared with those of Elastic's own client for Python, and mappings with its types:
both are generated from Elastic's specification of the API. Kibana has no such thing for Python.
"""

import base64
import email
import http.server
import json
import os
import ssl
import subprocess
import sys
import threading
import time
import typing
from datetime import UTC, datetime, timedelta

import pytest
from clone import ROOT, free_ports
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from elasticsearch import Elasticsearch

SETUP = ROOT / "logstash/setup"
SECRETS = {
    "elastic_password": "e1-pass",
    "kibana_password": "k1-pass",
    "logstash_password": "l1-pass",
}
ELASTIC = "Basic " + base64.b64encode(b"elastic:e1-pass").decode()
KIBANA_PATHS = ["/api/data_views/data_view", "/api/saved_objects/_import?overwrite=true"]
DONE = (200, {"success": True})


def read(name):
    text = (SETUP / name).read_text()
    return json.loads(text.replace("${LOG_RETENTION}", "30d").replace("${ROLLOVER}", "1d"))


class Service:
    """A web server of this machine that records requests, and answers as it is told, then 200."""

    def __init__(self, tls=None, port=0, answers=()):
        self.requests, self.answers = [], list(answers)
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.append((self.command, self.path, dict(self.headers), body))
                status, said = outer.answers.pop(0) if outer.answers else DONE
                if said is None:
                    time.sleep(status)
                    self.close_connection = True
                    return
                text = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("X-Elastic-Product", "Elasticsearch")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_PUT = do_POST = answer  # noqa: N815 (the base class's form)

            def log_message(self, *words):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"{'https' if tls else 'http'}://localhost:{self.server.server_port}"
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def asked(self):
        return [(method, path) for method, path, _, _ in self.requests]

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


CA_USAGE = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    **dict.fromkeys(
        [
            *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
            *("key_agreement", "encipher_only", "decipher_only"),
        ],
        False,
    ),
)


class Authority:
    """A certificate authority."""

    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name.from_rfc4514_string("CN=logging")
        self.certificate = self.signed(self.name, self.key, None)

    def signed(self, subject, key, host):
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host or "logging")]), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        )
        if host is None:
            builder = builder.add_extension(CA_USAGE, True)
        return builder.sign(self.key, hashes.SHA256())

    def pem(self):
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def server(self, folder):
        """TLS settings of a server that it vouches for."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.signed(x509.Name([]), key, "localhost")
        file = folder / "server.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(file)
        return tls


AUTHORITY = Authority()


@pytest.fixture
def tls(tmp_path):
    return AUTHORITY.server(tmp_path)


@pytest.fixture
def elasticsearch(tls):
    service = Service(tls)
    yield service
    service.stop()


@pytest.fixture
def kibana():
    service = Service()
    yield service
    service.stop()


@pytest.fixture
def set_up(elasticsearch, kibana, tmp_path):
    """Run setup.py: the exit status, the lines on stdout and those on stderr."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    for name, text in {**SECRETS, "logging_ca": AUTHORITY.pem()}.items():
        (folder / name).write_text(f"{text}\n")

    def run(*parts, **variables):
        """One part, or both until something is wrong."""
        done = []
        for part in parts or ("elasticsearch", "kibana"):
            status, said, errors = run_one(part, variables)
            done += said
            if status:
                break
        return status, done, errors

    def run_one(part, variables):
        settings = {
            "SECRETS": str(folder),
            "ELASTICSEARCH_URL": elasticsearch.url,
            "KIBANA_URL": kibana.url,
            "SETUP_TIMEOUT": "20",
            **variables,
        }
        answer = subprocess.run(
            # Isolated: the image has no other packages.
            [sys.executable, "-I", SETUP / "setup.py", part],
            env=os.environ | settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        said = answer.stdout + answer.stderr
        assert not [name for name, text in SECRETS.items() if text in said]
        return answer.returncode, answer.stdout.splitlines(), answer.stderr.splitlines()

    run.secrets = folder
    return run


def requests_of_the_client(tls):
    """What Elastic's client sends for the same bodies. It refuses parts that it does not know."""
    service = Service()
    client = Elasticsearch(service.url)
    client.ilm.put_lifecycle(name="logs-flask", **read("lifecycle.json"))
    client.indices.put_index_template(name="logs-flask", **read("template.json"))
    client.security.put_role(name="logstash_writer", **read("role.json"))
    client.security.put_user(
        username="logstash_writer", password=SECRETS["logstash_password"], roles=["logstash_writer"]
    )
    client.security.change_password(username="kibana_system", password=SECRETS["kibana_password"])
    client.close()
    service.stop()
    return [(method, path, json.loads(body)) for method, path, _, body in service.requests]


def test_elasticsearch_gets_what_its_own_client_would_send(set_up, elasticsearch, tls):
    status, done, errors = set_up()
    assert (status, errors) == (0, [])
    sent = [(method, path, json.loads(body)) for method, path, _, body in elasticsearch.requests]
    assert sent == requests_of_the_client(tls)
    for _, path, headers, _ in elasticsearch.requests:
        assert headers["Authorization"] == ELASTIC
        assert headers["Content-Type"] == "application/json"
        assert f"done  PUT {path}" in done


def test_kibana_gets_the_data_view_and_the_search(set_up, kibana):
    assert set_up()[0] == 0
    assert kibana.asked() == [("POST", path) for path in KIBANA_PATHS]
    for _, _, headers, _ in kibana.requests:
        assert headers["Authorization"] == ELASTIC
        assert headers["kbn-xsrf"]
    (_, _, _, view), (_, _, headers, form) = kibana.requests
    assert json.loads(view) == read("data_view.json")
    head = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode()
    (file,) = email.message_from_bytes(head + form).get_payload()
    assert file.get_param("name", header="Content-Disposition") == "file"
    # Kibana goes by the name's end.
    assert file.get_filename().endswith(".ndjson")
    (line,) = file.get_payload().split("\n")
    assert json.loads(line) == read("search.json")


def test_elasticsearchs_part_is_done_while_kibana_is_down(set_up, elasticsearch, kibana):
    """Logstash waits for it; Kibana needs minutes to start, and may not start at all."""
    (port,) = free_ports(1)
    assert set_up("elasticsearch", KIBANA_URL=f"http://localhost:{port}")[0] == 0
    assert len(elasticsearch.requests) == 5
    (set_up.secrets / "logging_ca").unlink()
    assert set_up("kibana")[0] == 0
    assert (len(elasticsearch.requests), len(kibana.requests)) == (5, 2)


def test_a_second_run_says_the_same(set_up, elasticsearch, kibana):
    assert set_up()[0] == set_up()[0] == 0
    for service in (elasticsearch, kibana):
        half = len(service.requests) // 2
        assert half
        told = [(method, path, body) for method, path, _, body in service.requests]
        assert told[:half] == told[half:]


def test_retention_is_one_variable(set_up, elasticsearch, kibana):
    assert set_up(LOG_RETENTION="365d")[0] == 0
    (_, _, _, policy), (_, _, _, template), *_ = elasticsearch.requests
    phases = json.loads(policy)["policy"]["phases"]
    assert phases["delete"]["min_age"] == "365d"
    assert phases["hot"]["actions"]["rollover"]["max_age"] == "12d"
    options = json.loads(template)["template"]["data_stream_options"]
    assert options["failure_store"]["lifecycle"]["data_retention"] == "365d"
    assert b"from:now-365d" in kibana.requests[0][3]


@pytest.mark.parametrize("retention", ["30", "0d", "30h", "-1d", "", "1 d", "10000d", "1d\n"])
def test_a_wrong_retention_is_refused_before_anything_is_asked(set_up, elasticsearch, retention):
    status, _, errors = set_up(LOG_RETENTION=retention)
    assert (status, len(errors)) == (1, 1)
    assert errors[0].startswith("error: LOG_RETENTION=")
    assert "LOG_RETENTION=30d in .env" in errors[0]
    assert elasticsearch.requests == []


@pytest.mark.parametrize("name", [*SECRETS, "logging_ca"])
def test_a_secret_that_is_not_there(set_up, elasticsearch, name):
    (set_up.secrets / name).unlink()
    status, _, errors = set_up()
    assert status == 1
    assert errors == [
        f"error: secret {name}: No such file or directory -> make secrets, then make up"
    ]
    assert elasticsearch.requests == []


def test_a_certificate_that_is_none(set_up):
    (set_up.secrets / "logging_ca").write_text("no certificate")
    status, _, errors = set_up()
    assert status == 1
    assert errors == ["error: secret logging_ca is no certificate -> make secrets, then make up"]


def no(status, reason="not yet"):
    return status, {"error": {"type": "some_exception", "reason": reason}, "status": status}


@pytest.mark.parametrize("status", [401, 403, 409, 429, 500, 503])
def test_what_passes_is_waited_for(set_up, elasticsearch, kibana, status):
    elasticsearch.answers = [no(status), DONE, DONE, no(status)]
    kibana.answers = [(status, {"statusCode": status, "message": "Kibana is not ready yet"})]
    assert set_up()[0] == 0
    asked = elasticsearch.asked()
    assert asked[0] == asked[1]
    assert asked[3] == asked[4]
    assert len(asked) == 5 + 2
    assert kibana.asked() == [("POST", path) for path in [KIBANA_PATHS[0], *KIBANA_PATHS]]


def test_nobody_listens_yet(set_up, kibana, tls):
    (port,) = free_ports(1)
    late = []
    timer = threading.Timer(2, lambda: late.append(Service(tls, port)))
    timer.start()
    status, _, errors = set_up(ELASTICSEARCH_URL=f"https://localhost:{port}")
    assert (status, errors) == (0, [])
    assert len(late[0].requests) == 5
    late[0].stop()


def test_nobody_listens_at_all(set_up):
    (port,) = free_ports(1)
    url = f"https://localhost:{port}"
    status, done, errors = set_up(ELASTICSEARCH_URL=url, SETUP_TIMEOUT="2")
    assert (status, done, len(errors)) == (os.EX_TEMPFAIL, [], 1)
    assert f"Elasticsearch at {url} did not answer PUT /_ilm/policy/logs-flask in 2 s" in errors[0]
    assert "Connection refused -> docker compose logs elasticsearch" in errors[0]


def test_it_accepts_and_never_answers(set_up, elasticsearch):
    elasticsearch.answers = [(30, None)]
    begin = time.monotonic()
    status, _, errors = set_up(SETUP_TIMEOUT="2")
    assert (status, len(errors)) == (os.EX_TEMPFAIL, 1)
    assert time.monotonic() - begin < 10


def test_it_never_gets_ready(set_up, kibana):
    kibana.answers = [(503, {"message": "Kibana is not ready yet"})] * 100
    status, done, errors = set_up(SETUP_TIMEOUT="3")
    assert (status, len(done), len(errors)) == (os.EX_TEMPFAIL, 5, 1)
    assert "503 Kibana is not ready yet -> docker compose logs kibana" in errors[0]
    # With pauses that grow.
    assert len(kibana.requests) < 6


def test_a_password_that_stays_wrong(set_up, elasticsearch):
    elasticsearch.answers = [no(401, "unable to authenticate user [elastic]")] * 100
    status, done, errors = set_up()
    assert (status, done, len(errors)) == (1, [], 1)
    assert "Elasticsearch refuses user elastic: 401 unable to authenticate" in errors[0]
    # Without --url it takes the first address of the container, which is in no certificate.
    assert errors[0].endswith(
        "elasticsearch-reset-password -i -u elastic --url https://localhost:9200"
    )


def test_what_will_never_be_taken(set_up, elasticsearch):
    elasticsearch.answers = [DONE, no(400, "unknown setting\n[index.lifecycle.nam]")]
    status, done, errors = set_up()
    assert (status, len(done)) == (1, 1)
    assert errors == [
        "error: Elasticsearch, PUT /_index_template/logs-flask: 400 unknown setting"
        " [index.lifecycle.nam] -> fix the file in logstash/setup"
    ]


def test_kibana_says_200_and_means_no(set_up, kibana):
    kibana.answers = [DONE, (200, {"success": False, "errors": [{"error": {"type": "x"}}]})]
    status, _, errors = set_up()
    assert (status, len(errors)) == (1, 1)
    assert "correct logstash/setup/search.json" in errors[0]


def test_the_password_is_told_to_nobody_else(set_up, tmp_path):
    """Whose certificate another authority signed, or that is for another name."""
    other = Service(Authority().server(tmp_path))
    status, _, errors = set_up(ELASTICSEARCH_URL=other.url)
    assert (status, len(errors)) == (1, 1)
    assert "has a certificate that secrets/logging_ca does not vouch for" in errors[0]
    assert other.requests == []
    other.stop()


def test_a_certificate_for_another_name(set_up, elasticsearch):
    status, _, errors = set_up(
        ELASTICSEARCH_URL=elasticsearch.url.replace("localhost", "127.0.0.1")
    )
    assert (status, len(errors)) == (1, 1)
    assert "IP address mismatch" in errors[0]
    assert elasticsearch.requests == []


def test_logstash_may_write_and_look_up_and_nothing_else():
    role = read("role.json")
    hints = typing.get_type_hints(type(Elasticsearch("http://x:1").security).put_role)
    assert set(role["cluster"]) <= literals(hints["cluster"])
    assert role == {
        "cluster": ["monitor"],
        "indices": [
            {"names": ["logs-flask-*"], "privileges": ["auto_configure", "create_doc", "read"]}
        ],
    }


def literals(hint):
    if typing.get_origin(hint) is typing.Literal:
        return {*typing.get_args(hint)}
    return {found for part in typing.get_args(hint) for found in literals(part)}
