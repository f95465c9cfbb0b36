"""nginx's access line: valid JSON, and short enough to be written whole whatever a client sends."""

import json
import re
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parents[2] / "nginx/templates/log.conf.template"
PIPE_BUF = 4096  # pipe(7)
NEWLINE = 1

# The longest value of each variable in bytes, escaped. Quotes and backslashes take two bytes.
CUT = len("[cut]")
LONGEST = {
    "log_time": len("2026-01-31T12:00:00.123+00:00"),
    "log_level": len("error"),
    "log_method": 16,
    "log_path": 2 * 320 + CUT,
    "log_query": 2 * 320 + CUT,
    "log_route": 2 * 100,
    "log_replica": 64,
    "log_worker": 10,
    "log_status": 3,
    "log_duration": 15,
    "log_http_version": 4,
    "log_domain": 253,
    "log_agent": 2 * 250 + CUT,
    "log_tls_version": 4,
    "log_trace": 32,
    "request_id": 32,
    "request_length": 10,
    "body_bytes_sent": 15,
    "remote_addr": 39,
    "ssl_cipher": 32,
    "connection": 12,
    "cache_status": len("REVALIDATED"),
    # Of two attempts, as proxy.conf has it.
    "upstream_addr": 2 * len("255.255.255.255:8000, "),
    "upstream_status": 2 * len("502, "),
    "upstream_connect_time": 2 * len("30.000, "),
    "upstream_header_time": 2 * len("30.000, "),
    "upstream_response_time": 2 * len("30.000, "),
}


def log_format() -> str:
    text = TEMPLATE.read_text().split("log_format ecs escape=json", 1)[1]
    return "".join(re.findall(r"^ +'(.*?)'", text, re.MULTILINE)).split("access_log")[0]


def test_the_longest_line_fits_into_one_write():
    longest = re.sub(r"\$(\w+)", lambda match: "x" * LONGEST[match[1]], log_format())
    assert len(longest) + NEWLINE <= PIPE_BUF


def test_a_line_is_json_and_names_route_replica_and_worker():
    values = {"log_duration": "1", "log_status": "200", "connection": "1"}
    values |= {"request_length": "1", "body_bytes_sent": "1"}
    line = re.sub(r"\$(\w+)", lambda match: values.get(match[1], match[1]), log_format())
    entry = json.loads(line)
    assert entry["http"]["route"] == "log_route"
    assert entry["nginx"]["upstream"]["replica"] == "log_replica"
    assert entry["nginx"]["upstream"]["worker"] == "log_worker"
