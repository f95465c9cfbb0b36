"""Answers that nginx keeps for a moment: whose, for whom, for how long."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import count
from urllib.parse import urlencode

import httpx
import pytest
from clone import Clone, wait_until

NUMBERS = count()


def page(**parameters) -> str:
    """The path of a page that no test has asked for before; no two answers to it are alike."""
    return f"/diagnostics/page?{urlencode({'test': next(NUMBERS), **parameters})}"


def test_a_public_answer_is_kept_and_its_state_is_in_header_and_log(stack, client):
    path = page(cache="public, max-age=30")
    first, second = client.get(path), client.get(path)
    assert first.json() == second.json()
    states = [answer.headers["X-Cache-Status"] for answer in (first, second)]
    assert states == ["MISS", "HIT"]
    ids = [answer.headers["X-Request-ID"] for answer in (first, second)]
    assert ids[0] != ids[1]
    logged = [stack.lines_of(name, "nginx")[0]["nginx"]["cache"]["status"] for name in ids]
    assert logged == states
    assert stack.asked(path) == 1


NOT_KEPT = {
    "nothing said": {},
    "no-store": {"cache": "no-store"},
    "not called public": {"cache": "max-age=30"},
    "private": {"cache": "private, max-age=30"},
    "public only in a word": {"cache": "x-public=1, max-age=30"},
    "public but no-cache": {"cache": "public, no-cache, max-age=30"},
    "with a cookie": {"cache": "public, max-age=30", "cookie": "1"},
    "differs in everything": {"cache": "public, max-age=30", "vary": "*"},
    "large": {"cache": "public, max-age=30", "bytes": "300000"},
}


@pytest.mark.parametrize("parameters", NOT_KEPT.values(), ids=NOT_KEPT)
def test_what_the_application_does_not_give_to_all_is_not_kept(client, parameters):
    path, identities = page(**parameters), set()
    for _ in range(3):
        answer = client.get(path)
        client.cookies.clear()
        assert answer.headers["X-Cache-Status"] == "MISS"
        identities.add(answer.json()["id"])
    assert len(identities) == 3


SOMEBODYS = {
    "cookie": {"Cookie": "anything=1"},
    "session": {"Cookie": "__Host-session=x"},
    "authorization": {"Authorization": "Bearer x"},
    "proxy authorization": {"Proxy-Authorization": "Basic YTpi"},
    "API key": {"X-API-Key": "x"},
    "token": {"X-Auth-Token": "x"},
    "part": {"Range": "bytes=0-9"},
}


@pytest.mark.parametrize("headers", SOMEBODYS.values(), ids=SOMEBODYS)
def test_somebodys_own_request_neither_fills_the_cache_nor_is_answered_from_it(client, headers):
    path = page(cache="public, max-age=30")
    own = client.get(path, headers=headers)
    assert own.headers["X-Cache-Status"] == "BYPASS"
    kept = client.get(path)
    assert kept.headers["X-Cache-Status"] == "MISS"
    again = client.get(path, headers=headers)
    assert again.headers["X-Cache-Status"] == "BYPASS"
    assert len({answer.json()["id"] for answer in (own, kept, again)}) == 3


def test_a_body_and_other_methods_pass_the_cache(client):
    path = page(cache="public, max-age=30")
    client.get(path)
    assert client.request("GET", path, content=b"x").headers["X-Cache-Status"] == "BYPASS"
    assert client.delete(path).headers["X-Cache-Status"] == "BYPASS"


def test_a_body_whose_length_nobody_states_passes_the_cache(stack):
    """In HTTP/2 it has neither Content-Length nor Transfer-Encoding."""
    path = page(cache="public, max-age=30")
    with stack.client(http2=True) as client:
        client.get(path)
        assert client.get(path).headers["X-Cache-Status"] == "HIT"
        body = client.request("GET", path, content=iter([b"x"]))
    assert body.http_version == "HTTP/2"
    assert "Content-Length" not in body.request.headers
    assert body.headers["X-Cache-Status"] == "BYPASS"


def test_what_changes_the_answer_is_part_of_the_key(client):
    path = page(cache="public, max-age=30", vary="Accept-Language")

    def identity(path: str, language: str) -> str:
        return client.get(path, headers={"Accept-Language": language}).json()["id"]

    german, english = identity(path, "de"), identity(path, "en")
    assert german != english
    assert identity(path, "de") == german
    assert identity(path, "en") == english
    assert identity(f"{path}&more", "de") != german
    assert client.head(path, headers={"Accept-Language": "de"}).headers["X-Cache-Status"] == "HIT"


def test_two_visitors_at_once_get_nothing_of_each_other(stack):
    path = page(cache="public, max-age=30")

    tls = stack.tls()

    def visit(number: int) -> httpx.Response:
        """One in two has a cookie, one in two speaks HTTP/2."""
        cookie = {"Cookie": f"visitor={number}"} if number % 4 < 2 else {}
        with httpx.Client(http2=number % 2 == 0, verify=tls) as client:
            return client.get(f"{stack.url}{path}", headers=cookie)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(visit, range(32)))
    assert len({answer.headers["X-Request-ID"] for answer in answers}) == 32
    own = [answer.json()["id"] for number, answer in enumerate(answers) if number % 4 < 2]
    shared = {answer.json()["id"] for number, answer in enumerate(answers) if number % 4 >= 2}
    assert len(set(own)) == len(own)
    assert not shared & set(own)
    for answer in answers:
        assert "Set-Cookie" not in answer.headers
        assert len(answer.headers.get_list("X-Request-ID")) == 1
    assert "HIT" in {answer.headers["X-Cache-Status"] for answer in answers[2::4]}
    assert "HIT" in {answer.headers["X-Cache-Status"] for answer in answers[3::4]}


def test_answers_that_are_not_kept_do_not_wait_for_each_other(stack):
    path = page(ms=500)
    with stack.client() as client, ThreadPoolExecutor(8) as pool:
        begin = time.monotonic()
        list(pool.map(lambda _: client.get(path), range(8)))
        # One after the other it would be four.
        assert time.monotonic() - begin < 3.5


def test_the_old_answer_is_given_while_one_request_gets_the_new(stack, client):
    path = page(cache="public, max-age=1, stale-while-revalidate=60", ms=3000)
    old, tls = client.get(path).json(), stack.tls()

    def visit(_: int = 0) -> httpx.Response:
        # Each on a connection of its own: on that of the request which gets the new answer, the
        # next one has to wait for it in HTTP/1.1.
        return httpx.get(f"{stack.url}{path}", verify=tls)

    wait_until(lambda: visit().headers["X-Cache-Status"] == "STALE", 5, "a second later")
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(visit, range(10)))
    assert {answer.headers["X-Cache-Status"] for answer in answers} == {"UPDATING"}
    assert {answer.json()["id"] for answer in answers} == {old["id"]}
    wait_until(lambda: visit().json() != old, 5, "the new answer")
    assert stack.asked(path) == 2


def outlived(stack: Clone, path: str, fault: AbstractContextManager) -> float:
    """How old the old answer was, in seconds, when it was asked for and given out the last time."""
    tls = stack.tls()

    def visit() -> httpx.Response:
        return httpx.get(f"{stack.url}{path}", verify=tls, timeout=4)

    begin = time.monotonic()
    old, last = visit().json(), 0.0
    with fault, suppress(httpx.TimeoutException):
        while (asked := time.monotonic()) - begin < 30:
            answer = visit()
            if not answer.is_success or answer.json() != old:
                break
            last = asked - begin
            time.sleep(0.1)
    return last


@contextmanager
def dead(stack: Clone):
    stack.compose("kill", "app")
    try:
        yield
    finally:
        stack.start("app")


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ("stale-while-revalidate=8", lambda stack: stack.paused("app")),
        ("stale-if-error=8", dead),
    ],
    ids=["slow", "dead"],
)
def test_an_old_answer_bridges_a_fault_and_no_longer_than_stated(stack, words, fault):
    path = page(cache=f"public, max-age=1, {words}")
    # nginx counts in whole seconds.
    assert 7.5 < outlived(stack, path, fault(stack)) < 10.5


def test_without_such_words_nothing_old_is_given_out(stack, client):
    path = page(cache="public, max-age=1")
    client.get(path)
    with dead(stack):
        wait_until(lambda: client.get(path, timeout=10).status_code in (502, 504), 10, "an error")


def test_purge(stack, client):
    one, other = (page(cache="public, max-age=60", vary="Accept-Language") for _ in range(2))
    visits = [(path, {"Accept-Language": name}) for path in (one, other) for name in ("de", "en")]

    def identities() -> list[str]:
        return [client.get(path, headers=headers).json()["id"] for path, headers in visits]

    first = identities()
    assert identities() == first
    # The address of one page, with characters that mean something to a shell and to grep.
    assert stack.make("purge", f"URL={one}").stdout == "purged 2\n"
    second = identities()
    assert second[2:] == first[2:]
    assert not set(second[:2]) & set(first)
    assert stack.make("purge", "URL=/.*").stdout == "purged 0\n"
    assert identities() == second
    assert int(stack.make("purge").stdout.split()[1]) >= 4
    assert not set(identities()) & set(second)
    refused = stack.make("purge", "URL=news", check=False)
    assert refused.returncode != 0
    assert "does not begin with a slash" in refused.stderr


def test_a_full_cache_keeps_nothing_and_answers_all(stack, client):
    path = page(cache="public, max-age=60", bytes="250000")

    def state() -> str:
        """Empty: broken off."""
        try:
            return client.get(path).headers["X-Cache-Status"]
        except httpx.RemoteProtocolError:
            return ""

    with stack.filled("nginx", "/var/cache/nginx"):
        # The health check looks every five seconds.
        wait_until(lambda: state() == "BYPASS", 20, "the cache to be left out")
        answers = [client.get(path) for _ in range(50)]
        assert {len(answer.json()["padding"]) for answer in answers} == {250_000}
    wait_until(lambda: state() == "HIT", 20, "an answer kept")
