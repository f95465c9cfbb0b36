"""The sample's page in a real browser, over TLS; a fork deletes this file with the sample."""

import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from browser import chromium
from clone import ROOT, Clone, wait_until
from scrape import total

SCREENSHOTS = ROOT / "tests/artifacts"
SIZES = {"desktop": (1280, 800), "phone": (390, 844)}


@pytest.fixture(scope="module")
def browser(stack, tmp_path_factory):
    with chromium(stack, tmp_path_factory.mktemp("playwright")) as browser:
        yield browser


@pytest.fixture(params=["light", "dark"])
def scheme(request):
    return request.param


@pytest.fixture(params=SIZES)
def page(request, browser, scheme, stack):
    """The loaded page; at the end nothing may have been complained about."""
    width, height = SIZES[request.param]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, base_url=stack.url
    )
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"exception: {error}"))
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
    page.on(
        "response",
        lambda answer: answer.status >= 400 and complaints.append(f"{answer.status}: {answer.url}"),
    )
    page.add_init_script(
        "addEventListener('securitypolicyviolation', e => console.error(e.violatedDirective))"
    )
    page.goto("/")
    page.wait_for_load_state("networkidle")
    yield page
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"page-{request.param}-{scheme}.png", full_page=True)
    context.close()
    assert complaints == []


def test_page_shows_what_the_stack_did_for_this_visit(page, stack):
    body = page.locator("body")
    with page.expect_response("**/api/request") as response:
        page.get_by_role("button").click()
    facts = response.value.json()
    assert facts["scheme"] == "https"
    for fact in ("request_id", "client_address", "replica", "version"):
        page.get_by_text(str(facts[fact])).first.wait_for()
    assert body.inner_text().count(facts["request_id"]) == 1
    # No scrolling sideways, on a phone above all.
    assert page.evaluate(
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )


def test_shell_is_the_same_for_everybody(stack):
    """Only then may it be cached, for a second, by anything in between."""
    with stack.client() as one, stack.client() as other:
        answers = [one.get("/"), other.get("/")]
        facts = one.get("/api/request")
    assert answers[0].content == answers[1].content
    assert "Set-Cookie" not in answers[0].headers
    assert answers[0].headers["Cache-Control"].startswith("public, max-age=1,")
    assert facts.headers["Cache-Control"] == "no-store"


def test_facts_are_this_visitors(stack):
    with stack.client() as client:
        answer = client.get("/api/request")
    facts = answer.json()
    gateway = stack.run(
        *("docker", "network", "inspect", f"{stack.name}_edge"),
        *("--format", "{{(index .IPAM.Config 0).Gateway}}"),
    ).stdout.strip()
    # A client on this machine arrives from the network's gateway.
    assert facts["client_address"] == gateway
    assert facts["scheme"] == "https"
    assert facts["host"] == f"localhost:{stack.https_port}"
    assert facts["request_id"] == answer.headers["X-Request-ID"]
    assert facts["replica"] == stack.inspect("app")[0]["Config"]["Hostname"]
    assert facts["addons"] == []
    assert re.fullmatch(r"\S+", facts["version"])


def test_concurrent_misses_of_the_start_page_become_one(stack, client):
    client.get("/diagnostics/hello")
    stack.make("purge")
    before, tls = stack.asked("/"), stack.tls()
    with ThreadPoolExecutor(30) as pool:
        with stack.paused("app"):
            answers = [pool.submit(httpx.get, stack.url, verify=tls) for _ in range(30)]
            wait_until(lambda: under_way(stack) >= 30, 4, "30 requests that wait")
        assert {answer.result().status_code for answer in answers} == {200}
    assert stack.asked("/") - before == 1


def under_way(stack: Clone) -> int:
    """Connections on which nginx has read a request and not answered it."""
    # One of them is the question itself.
    return int(total(stack.edge_metrics(), "nginx_connections", state="writing")) - 1


def test_the_start_page_outlives_the_application(stack, client):

    def state() -> str:
        answer = client.get("/")
        assert answer.status_code == 200
        return answer.headers["X-Cache-Status"]

    state()
    stack.compose("kill", "app")
    try:
        wait_until(lambda: state() in ("STALE", "UPDATING"), 10, "the old page")
    finally:
        stack.start("app")
