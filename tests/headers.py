"""The security headers, which are on every answer of nginx."""

import httpx

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; ",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), ",
    "X-Request-ID": "",
}


def check(answer: httpx.Response) -> None:
    """Each is there once, whoever made the answer."""
    for name, value in HEADERS.items():
        found = answer.headers.get_list(name)
        assert len(found) == 1, name
        assert found[0].startswith(value)
    assert len(answer.headers.get_list("Cache-Control")) <= 1
    assert "nginx/" not in answer.headers.get("Server", "")
