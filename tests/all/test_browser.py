"""What a browser sees while the stack changes: nothing.

Chromium does not repeat what it was about to send on an HTTP/2 connection that nginx closes before
the first stream (docs/edge.md), so every failure of one counts here.
"""

import threading
from contextlib import contextmanager

import pytest
from browser import chromium

# Half GET, half POST, all at once; what failed.
FETCH = """
async () => {
  const one = async (_, n) => {
    try {
      const answer = await fetch('/diagnostics/echo?' + n, {method: n % 2 ? 'POST' : 'GET'});
      await answer.text();
      return answer.ok ? [] : [answer.status];
    } catch (error) {
      return [String(error)];
    }
  };
  return (await Promise.all(Array.from({length: 20}, one))).flat();
}
"""


@pytest.fixture(scope="module")
def browser(stack, tmp_path_factory):
    with chromium(stack, tmp_path_factory.mktemp("playwright")) as browser:
        yield browser


def visit(browser, stack) -> list[str]:
    """What failed for a visitor without connections, who loads a page and 20 answers."""
    failed = []
    context = browser.new_context(base_url=stack.url)
    try:
        page = context.new_page()
        page.on("requestfailed", lambda request: failed.append(f"{request.url}: {request.failure}"))
        page.goto("/diagnostics/echo")
        failed += page.evaluate(FETCH)
    finally:
        context.close()
    return failed


@contextmanager
def changing(change):
    """Beside the block, which learns whether it goes on: only its thread may use Playwright."""
    problems = []

    def run():
        try:
            change()
        except Exception as error:
            problems.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread.is_alive
    finally:
        thread.join()
    assert problems == []


def reload_often(stack):
    for _ in range(30):
        stack.execute("nginx", "reload")


def release_and_back(stack):
    stack.make("release", APP_VERSION="v2")
    stack.make("release-rollback")


@pytest.mark.parametrize("change", [reload_often, release_and_back])
def test_a_browser_loses_nothing(browser, stack, change):
    visits, failed = 0, []
    with changing(lambda: change(stack)) as goes_on:
        while goes_on():
            failed += visit(browser, stack)
            visits += 1
    print(f"{visits} visits, {21 * visits} requests, {len(failed)} failed")
    assert failed == []
    assert visits > 3
