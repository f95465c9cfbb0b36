"""The whole logging add-on, where its images can be had: lines in, hits out."""

import contextlib
import json
import secrets
import socket
import ssl
import threading

import httpx
import pytest
import yaml
from clone import Clone, free_ports, leftovers, wait_until

STREAM = "logs-flask-default"


class Addon:
    def __init__(self, stack: Clone, kibana: str):
        self.stack, self.kibana = stack, kibana

    def secret(self, name: str) -> str:
        return (self.stack.folder / "secrets" / name).read_text().strip()

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.secret("logging_ca"))

    def address(self, service: str) -> str:
        """On the network of this test: this machine has no address in those of the add-on."""
        (container,) = self.stack.inspect(service)
        return container["NetworkSettings"]["Networks"][f"{self.stack.name}_test"]["IPAddress"]

    def ask(self, method: str, path: str, auth=None, **options) -> httpx.Response:
        """Elasticsearch, as user elastic unless told otherwise."""
        url = f"https://{self.address('elasticsearch')}:9200{path}"
        auth = auth or ("elastic", self.secret("elastic_password"))
        with httpx.Client(verify=self.tls(), timeout=30) as client:
            return client.request(
                method, url, auth=auth, extensions={"sni_hostname": "elasticsearch"}, **options
            )

    def hits(self, field: str, value: str, stream: str = STREAM) -> list[dict]:
        """All lines, those of the last second too."""
        self.ask("POST", f"/{stream}/_refresh")
        body = {"query": {"term": {field: value}}, "size": 100}
        answer = self.ask("POST", f"/{stream}/_search", json=body)
        return answer.json()["hits"]["hits"] if answer.status_code == 200 else []

    def found(self, field: str, value: str, seconds: float = 60) -> list[dict]:
        return wait_until(lambda: self.hits(field, value), seconds, f"a line with {field} {value}")

    def send(self, *lines: str) -> None:
        """To Logstash, until it has read them all."""
        address = (self.address("logstash"), 5959)
        with (
            socket.create_connection(address, timeout=30) as plain,
            self.tls().wrap_socket(plain, server_hostname="logstash") as connection,
        ):
            connection.sendall("".join(f"{line}\n" for line in lines).encode())
            # As logstash/forwarder/sender.py ends a connection.
            connection.settimeout(0)
            with contextlib.suppress(ssl.SSLError):
                connection.unwrap()
            connection.settimeout(30)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass

    def send_and_wait(self, *lines: str) -> None:
        """Until lines that came after them are found."""
        self.send(*lines)
        for _ in range(2):
            self.send(line(marker := unique()))
            self.found("event.id", marker)


def unique() -> str:
    return secrets.token_hex(8)


def line(event_id: str, **fields) -> str:
    return json.dumps({"event": {"id": event_id, "dataset": "app"}, "message": "a line", **fields})


@pytest.fixture(scope="module")
def addon(tmp_path_factory):
    (kibana,) = free_ports(1)
    stack = Clone(tmp_path_factory.mktemp("clone"), APP_ENV="testing", KIBANA_PORT=str(kibana))
    services = {
        "logstash": {"networks": ["backend", "search", "test"]},
        "elasticsearch": {"networks": ["search", "test"]},
    }
    override = {"services": services, "networks": {"test": {}}}
    file = stack.folder / "docker-compose.override.yml"
    file.write_text(yaml.safe_dump(override))
    try:
        answer = stack.make("up", "WITH=logging", check=False)
        if answer.returncode and "out of reach" in answer.stderr:
            # The add-on is not on, so its services are unknown.
            file.unlink()
            pytest.skip("the images of the logging add-on are out of reach")
        assert answer.returncode == 0, answer.stdout + answer.stderr
        yield Addon(stack, f"http://127.0.0.1:{kibana}")
    finally:
        stack.remove()
    assert leftovers(stack.name) == []


def test_one_line_in_is_one_hit_out(addon):
    addon.send(line(one := unique(), labels={"a": {"b": 1}}))
    (hit,) = addon.found("event.id", one)
    assert hit["_id"] == one
    assert hit["_source"]["message"] == "a line"
    assert hit["_source"]["labels"] == {"a": {"b": 1}}


def test_a_request_is_found_by_its_id_in_every_service(addon):
    with addon.stack.client() as client:
        request = client.get("/").headers["X-Request-ID"]

    def datasets() -> set[str]:
        return {
            hit["_source"]["event"]["dataset"] for hit in addon.hits("http.request.id", request)
        }

    wait_until(lambda: datasets() == {"nginx.access"}, 60, "the access line")
    (edge,) = (
        hit["_source"]
        for hit in addon.hits("http.request.id", request)
        if hit["_source"]["service"]["name"] == "nginx"
    )
    assert '""' not in json.dumps(edge)
    assert "query" not in edge["url"]
    assert addon.hits("client.ip", "0.0.0.0/0") + addon.hits("client.ip", "::/0")


def test_what_is_no_json_is_kept(addon):
    text = f"no JSON {unique()}"
    addon.send_and_wait(text, text)
    hits = [
        hit for hit in addon.hits("event.dataset", "unparsed") if hit["_source"]["message"] == text
    ]
    assert len(hits) == 1
    assert hits[0]["_source"]["event"]["id"] == hits[0]["_id"]


def test_a_line_that_elasticsearch_refuses_is_kept_and_holds_nobody_up(addon):
    addon.send_and_wait(line(refused := unique(), http="no object"))
    assert addon.hits("event.id", refused) == []
    assert len(addon.hits("document.id", refused, f"{STREAM}::failures")) == 1


def test_a_line_that_is_sent_again_is_there_once(addon):
    addon.send_and_wait(line(again := unique()))
    addon.send_and_wait(line(again))
    assert len(addon.hits("event.id", again)) == 1


def test_a_replayed_line_is_there_once_also_in_a_later_index(addon):
    known, new = unique(), unique()
    addon.send_and_wait(line(known))
    assert addon.ask("POST", f"/{STREAM}/_rollover").json()["rolled_over"]
    addon.send_and_wait(line(known, tags=["replay"]), line(new, tags=["replay"]))
    assert len(addon.hits("event.id", known)) == 1
    assert len(addon.hits("event.id", new)) == 1


def test_retention_is_attached(addon):
    (stream,) = addon.ask("GET", f"/_data_stream/{STREAM}").json()["data_streams"]
    assert (stream["template"], stream["ilm_policy"]) == ("logs-flask", "logs-flask")
    assert stream["status"] == "GREEN"
    explained = addon.ask("GET", f"/{STREAM}/_ilm/explain").json()["indices"]
    assert {index["policy"] for index in explained.values()} == {"logs-flask"}
    policy = addon.ask("GET", "/_ilm/policy/logs-flask").json()["logs-flask"]["policy"]
    assert policy["phases"]["delete"]["min_age"] == "30d"


def test_nobody_gets_in_with_a_wrong_password(addon):
    for user in ("elastic", "logstash_writer", "kibana_system"):
        assert addon.ask("GET", "/", auth=(user, "wrong")).status_code == 401
    assert httpx.get(f"{addon.kibana}/api/data_views").status_code == 401


def test_logstash_can_neither_delete_nor_read_elsewhere(addon):
    writer = ("logstash_writer", addon.secret("logstash_password"))
    assert addon.ask("GET", "/", auth=writer).status_code == 200
    for method, path in (
        ("DELETE", f"/_data_stream/{STREAM}"),
        ("PUT", "/logs-other-default"),
        ("GET", "/.kibana/_search"),
        ("GET", "/_security/user"),
    ):
        assert addon.ask(method, path, auth=writer).status_code == 403, path


def test_kibana_has_the_data_view_and_the_search(addon):
    options = {"auth": ("elastic", addon.secret("elastic_password"))}
    view = httpx.get(f"{addon.kibana}/api/data_views/data_view/logs-flask", **options).json()
    assert "http.request.id" in view["data_view"]["fieldFormats"]
    found = httpx.post(
        f"{addon.kibana}/api/saved_objects/_export",
        json={"objects": [{"type": "search", "id": "logs-flask"}]},
        headers={"kbn-xsrf": "true"},
        **options,
    )
    assert found.status_code == 200, found.text
    assert "http.request.id" in found.text


def test_to_set_up_again_changes_nothing(addon):
    def template() -> dict:
        (found,) = addon.ask("GET", "/_index_template/logs-flask").json()["index_templates"]
        return found["index_template"]["template"]

    before = template()
    addon.stack.compose("run", "--rm", "--no-deps", "elasticsearch-setup")
    assert template() == before


def test_nothing_is_missing_after_elasticsearch_was_away(addon):
    """Stopped and started while lines come."""
    run, sent, stop = unique(), [], threading.Event()

    def load() -> None:
        while not stop.is_set():
            batch = [f"{run}-{number}" for number in range(len(sent), len(sent) + 50)]
            addon.send(*(line(one, service={"name": run}) for one in batch))
            sent.extend(batch)

    sender = threading.Thread(target=load)
    sender.start()
    try:
        for number in (500, 1000, 1500):
            wait_until(lambda: len(sent) >= number, 60, f"{number} lines")  # noqa: B023
            if number == 500:
                addon.stack.compose("stop", "elasticsearch")
            if number == 1000:
                addon.stack.compose("start", "elasticsearch")
    finally:
        stop.set()
        sender.join()

    def count() -> int:
        addon.ask("POST", f"/{STREAM}/_refresh")
        body = {"query": {"term": {"service.name": run}}}
        return addon.ask("POST", f"/{STREAM}/_count", json=body).json().get("count", 0)

    wait_until(lambda: addon.stack.is_healthy("elasticsearch"), 120, "Elasticsearch")
    wait_until(lambda: count() >= len(sent), 120, f"{len(sent)} lines")
    assert count() == len(sent)
