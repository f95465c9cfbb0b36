"""Gives Elasticsearch or Kibana what the logging add-on needs, and ends.

Usage: setup.py elasticsearch | kibana. Two parts, because Logstash waits for the first alone.

Run again it changes nothing, but for what the files beside it, the passwords or LOG_RETENTION have
changed. In Docker Swarm nothing guarantees an order, so every request is repeated until it is
answered, for SETUP_TIMEOUT seconds in all. Exit status: 0 when all is done, 75 (EX_TEMPFAIL) when
that was not long enough, 1 when trying again would not help.
"""

import base64
import functools
import http.client
import json
import os
import random
import re
import ssl
import string
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

HERE = Path(__file__).parent
SECRETS = Path(os.environ.get("SECRETS", "/run/secrets"))
ELASTICSEARCH = os.environ.get("ELASTICSEARCH_URL", "https://elasticsearch:9200")
KIBANA = os.environ.get("KIBANA_URL", "http://kibana:5601")
TIMEOUT = float(os.environ.get("SETUP_TIMEOUT", "300"))
RETENTION = os.environ.get("LOG_RETENTION", "30d")

# While it starts, Elasticsearch refuses even the right password.
REFUSED = TIMEOUT / 10
LONGEST_PAUSE = 10
BOUNDARY = "a-line-that-is-in-no-object"

started = time.monotonic()


def die(what, fix, status=1):
    print(f"error: {' '.join(what.split())} -> {fix}", file=sys.stderr)
    sys.exit(status)


def secret(name):
    try:
        return (SECRETS / name).read_text().strip()
    except OSError as error:
        die(f"secret {name}: {error.strerror}", "make secrets, then make up")


@functools.cache
def trusted():
    try:
        return ssl.create_default_context(cadata=secret("logging_ca"))
    except ssl.SSLError:
        die("secret logging_ca is no certificate", "make secrets, then make up")


def content(name):
    """A file beside this one, its variables filled in."""
    days = int(RETENTION[:-1])
    # About thirty indices, whatever the retention: each takes memory.
    values = {"LOG_RETENTION": RETENTION, "ROLLOVER": f"{max(1, days // 30)}d"}
    return json.loads(string.Template((HERE / name).read_text()).substitute(values))


def send(url, method, path, body, content_type, timeout):
    parts = urlsplit(url)
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(parts.netloc, timeout=timeout, context=trusted())
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=timeout)
    headers = {"Authorization": f"Basic {credentials}", "Content-Type": content_type}
    if url == KIBANA:
        headers["kbn-xsrf"] = "true"
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    finally:
        connection.close()


def reason(answer):
    """What Elasticsearch or Kibana says is wrong."""
    try:
        said = json.loads(answer)
        return said["message"] if "message" in said else said["error"]["reason"]
    except (ValueError, LookupError, TypeError):
        return answer[:200]


def ask(url, method, path, body, content_type="application/json"):
    """Send a request until it is answered, and give back the answer."""
    service = "Kibana" if url == KIBANA else "Elasticsearch"
    pause, refused = 0.5, None
    while True:
        now = time.monotonic()
        rest = max(started + TIMEOUT - now, 1)
        try:
            status, answer = send(url, method, path, body, content_type, min(rest, 30))
        except ssl.SSLCertVerificationError as error:
            die(
                f"{service} at {url} has a certificate that secrets/logging_ca does not vouch for:"
                f" {error.verify_message}",
                "renew both, as logstash/README.md says",
            )
        except (OSError, http.client.HTTPException) as error:
            problem = str(error) or type(error).__name__
        else:
            if status < 300:
                print(f"done  {method} {path}", flush=True)
                return answer
            problem = f"{status} {reason(answer)}"
            if status in (401, 403):
                refused = refused or now
                if now - refused > REFUSED:
                    die(
                        f"{service} refuses user elastic: {problem}",
                        "if secrets/elastic_password is not that of its first start: docker compose"
                        " exec elasticsearch elasticsearch-reset-password -i -u elastic"
                        " --url https://localhost:9200",
                    )
            # 409: the same set-up, run twice at once.
            elif status not in (409, 429) and status < 500:
                die(f"{service}, {method} {path}: {problem}", "fix the file in logstash/setup")
        if time.monotonic() + pause > started + TIMEOUT:
            die(
                f"{service} at {url} did not answer {method} {path} in {TIMEOUT:g} s: {problem}",
                f"docker compose logs {service.lower()}; then make up",
                os.EX_TEMPFAIL,
            )
        time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311
        pause = min(2 * pause, LONGEST_PAUSE)


def put(path, body):
    ask(ELASTICSEARCH, "PUT", path, json.dumps(body))


def multipart(text):
    """A form with one file, as browsers send it (RFC 7578)."""
    return "\r\n".join(
        [
            f"--{BOUNDARY}",
            'Content-Disposition: form-data; name="file"; filename="objects.ndjson"',
            "Content-Type: application/ndjson",
            "",
            text,
            f"--{BOUNDARY}--",
            "",
        ]
    )


def set_up_elasticsearch():
    logstash_password, kibana_password = secret("logstash_password"), secret("kibana_password")
    # The policy before the template that names it, the role before its user.
    put("/_ilm/policy/logs-flask", content("lifecycle.json"))
    put("/_index_template/logs-flask", content("template.json"))
    put("/_security/role/logstash_writer", content("role.json"))
    put(
        "/_security/user/logstash_writer",
        {"password": logstash_password, "roles": ["logstash_writer"]},
    )
    # Kibana gets on only now.
    put("/_security/user/kibana_system/_password", {"password": kibana_password})


def set_up_kibana():
    # What people have changed in these two is lost; they can keep it under another name.
    # https://www.elastic.co/docs/api/doc/kibana/
    ask(KIBANA, "POST", "/api/data_views/data_view", json.dumps(content("data_view.json")))
    path = "/api/saved_objects/_import?overwrite=true"
    form = multipart(json.dumps(content("search.json")))
    answer = ask(KIBANA, "POST", path, form, f"multipart/form-data; boundary={BOUNDARY}")
    if not json.loads(answer)["success"]:
        die(f"Kibana, {path}: {answer[:300]}", "correct logstash/setup/search.json")


if not re.fullmatch(r"[1-9][0-9]{0,3}d", RETENTION):
    die(
        f"LOG_RETENTION={RETENTION}: not a number of days",
        "LOG_RETENTION=30d in .env, then make up",
    )
credentials = base64.b64encode(f"elastic:{secret('elastic_password')}".encode()).decode()
{"elasticsearch": set_up_elasticsearch, "kibana": set_up_kibana}[sys.argv[1]]()
