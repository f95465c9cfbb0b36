"""docs/edge.md, "What one client can hold": its figures follow from the settings' defaults."""

import re

import pytest
from clone import ROOT
from test_limits import BUFFERS, CLIENTS, COMPOSE, LIMITS_, limits, nginx, read

PAGE = (ROOT / "docs/edge.md").read_text()
MB = 2**20
N = limits.numbers(read(COMPOSE))
LOGGING = read(COMPOSE)["services"]["nginx"]["logging"]["options"]
RATE = int(read(COMPOSE)["services"]["nginx"]["environment"]["RATE_LIMIT"])
LOG = limits.size(LOGGING["max-size"]) * int(LOGGING["max-file"])
REQUESTS = N["CONNECTION_LIMIT"]
BODIES = N["UPLOAD_LIMIT"] * N["MAX_BODY_SIZE"] + REQUESTS * limits.SMALL_BODY
RESPONSES = REQUESTS * (N["REQUEST_TMP"] - limits.SMALL_BODY)
MEMORY = REQUESTS * ((int(BUFFERS[1]) + 1) * limits.size(BUFFERS[2]))
HANDSHAKE = nginx("client_header_timeout", CLIENTS)

FIGURES = {
    "Connections": (
        f"{N['CONNECTIONS']:.0f} connections",
        f"{N['CONNECTIONS'] * limits.CONNECTION / MB:.0f} of {N['NGINX_MEMORY'] / MB:.0f} MB",
    ),
    "Handshakes": (f"{HANDSHAKE:.0f} s", f"{N['CONNECTIONS'] // HANDSHAKE:.0f} a second"),
    "Streams": (f"{nginx('http2_max_concurrent_streams', LIMITS_)}", f"{REQUESTS} requests"),
    "Request bodies": (f"{BODIES / MB:.0f} MB",),
    "Responses": (f"{RESPONSES / MB:.0f} MB", f"{MEMORY / MB:.0f} MB"),
    "Sum of both": (f"{(BODIES + RESPONSES) / MB:.0f} of {N['NGINX_TMP'] / MB:.0f} MB",),
    "Cached responses": (
        f"{(N['MIN_FREE'] + REQUESTS * limits.KEPT) / MB:.0f} of {N['NGINX_CACHE'] / MB:.0f} MB",
    ),
    "Log lines": (
        f"{2 * RATE} a second",
        f"{LOGGING['max-file']} × {LOGGING['max-size'][:-1]} MB",
        f"{LOG / (2 * RATE * 1024):.0f} s",
    ),
}
ROWS = dict(re.findall(r"^\| ([A-Z][^|]+) \|(.*)\|$", PAGE.partition("can hold\n")[2], re.M))


def test_the_table_has_these_rows():
    assert ROWS.keys() == FIGURES.keys()


@pytest.mark.parametrize("row", FIGURES)
def test_figures_follow_from_the_defaults(row):
    assert [figure for figure in FIGURES[row] if figure not in ROWS[row]] == []


def test_one_client_leaves_space_for_others():
    assert N["NGINX_TMP"] > BODIES + RESPONSES
    assert N["MIN_FREE"] + REQUESTS * limits.KEPT < N["NGINX_CACHE"]
    assert N["CONNECTIONS"] * limits.CONNECTION < N["NGINX_MEMORY"]
