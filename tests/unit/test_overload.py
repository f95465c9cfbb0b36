"""What a request gets for which no thread came free; worker.py marks it."""

from webapp import overload


def test_503_with_retry_after_in_the_usual_form(client):
    marked = {overload.KEY: True}
    answer = client.get("/", environ_base=marked, headers={"Accept": "application/json"})
    assert answer.status_code == answer.json["status"] == 503
    assert answer.headers["Retry-After"] == "5"
    assert client.get("/livez").status_code == 200
