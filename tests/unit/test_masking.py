"""What is masked in log lines, by the table that the application and nginx read alike."""

import re
import subprocess
import time

import pytest
from clone import ROOT
from webapp import masking
from webapp.masking import is_sensitive, mask

NAMES = [
    "password", "passwd", "new_password2", "passphrase", "pass_phrase", "passcode", "secret",
    "client-secret", "credentials", "token", "access_token", "csrfmiddlewaretoken", "X-Api-Key",
    "apikey", "access_key", "private_key", "session_id", "PHPSESSID", "JSESSIONID", "cookie",
    "authorization", "auth_code", "SAMLResponse", "_csrf", "xsrf", "user.password",
    "user[password]", "users[0][password]", "pass", "pwd", "jwt", "otp", "sid", "DB_PASS",
    "db-pwd", "user[pass]",
]  # fmt: skip
UNCLEAR = ["code", "session", "sig", "signature", "auth", "ticket", "tokens"]

FORMS = {
    # A value is in two words where that is legal, and a part of it is "unter2".
    "repr of a MultiDict": "ImmutableMultiDict([('user', 'anna'), ('KEY', 'h unter2a')])",
    "repr of bytes": "[(b'KEY', b'h unter2a'), (b'user', b'anna')]",
    "repr of a dict": "{'KEY': 'h unter2a', 'user': 'anna'}",
    "repr with quotes": r"""{'KEY': 'it\'s "h" unter2a', 'user': 'anna'}""",
    "a list": """{'KEY': ['h unter2a', "more unter2"], 'user': 'anna'}""",
    "a dict": "{'KEY': {'old': 'h}unter2', 'new': 'unter2'}, 'user': 'anna'}",
    "repr of an object": "User(KEY='h unter2a', name='anna')",
    "JSON": '{"KEY": "h unter2a", "user": "anna"}',
    "JSON with quotes": r'{"KEY": "h\" unter2a", "user": "anna"}',
    "JSON in JSON": r'{"body": "{\"KEY\": \"h unter2a\", \"user\": \"anna\"}"}',
    "a query": "/login?user=anna&KEY=h'),;unter2a&next=anna",
    "an encoded key": "/login?user%5BKEY%5D=hunter2a&user=anna",
    "encoded": "/in?next=%2Flogin%3FKEY%3Dhunter2a%26x%3D1&user=anna",
    "encoded twice": "/in?next=%252Flogin%253FKEY%253Dhunter2a%2526x&user=anna",
    "encoded JSON": "/in?q=%7B%22KEY%22%3A%22h%20unter2a%22%7D&user=anna",
    "text": "KEY = hunter2a of anna",
    "Ruby": "{'KEY' => 'h unter2a', 'user' => 'anna'}",
    "a cookie": 'Cookie: KEY=hunter2a; KEY="h unter2"\nanna',
    "Set-Cookie": "Set-Cookie: x=hunter2a; HttpOnly; KEY=unter2\nanna",
    "a multipart form": 'form-data; name="KEY"\r\n\r\nhunter2a\r\n--anna',
    "repr of a multipart form": r"""b'form-data; name="KEY"\r\n\r\nhunter2a\r\n-- anna'""",
}

TEXTS = [
    ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ***"),
    ("Proxy-Authorization: Basic YTpi", "Proxy-Authorization: Basic ***"),
    ('Authorization: Digest username="M", response="x"', "Authorization: Digest ***"),
    ("Authorization: AWS4-HMAC Signature=fe5f80", "Authorization: ***"),
    ("got bearer abcdefgh from anna", "got bearer *** from anna"),
    ("Headers([('Authorization', 'Bearer x y')])", "Headers([('Authorization', ***)])"),
    ("postgres://anna:hunter2@db/shop", "postgres://anna:***@db/shop"),
    ("redis://:p@ss@db/0", "redis://:***@db/0"),
    ("['mysql', '--password', 'a b', '-u', 'x']", "['mysql', '--password', ***, '-u', 'x']"),
    ("tool --db-password hunter2 --user anna", "tool --db-password *** --user anna"),
    ("X-Amz-Signature=fe5f80a1&x=1", "X-Amz-Signature=***&x=1"),
    ("at eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln.", "at ***."),
    ("key ghp_abcdefghijklmnop0123", "key ghp_***"),
    ("?code=4/0AX4XfWh&state=1", "?code=***&state=1"),
    ("user[code]=hunter2&user%5Bcode%5D=hunter2&x=1", "user[code]=***&user%5Bcode%5D=***&x=1"),
    ("<Cookie session=abc123 for example.org/>", "<Cookie session=*** for example.org/>"),
]  # fmt: skip

INNOCENT = [
    "status code 404", "code=404", '{"code": 404}', "error code: 500", "code: invalid_grant",
    "status_code=200123", "zip_code=123456", "3 passed: all", "passed=12", "passenger=anna12",
    "pass_count=3", "compass: 123456", "1234 tokens were used", "max_tokens=100", "session: closed",
    "significant=123456", "design: 1234567", "password=None", '{"token": null}', "secret=False",
    "author=anna", "authority=example.org", "sidecar: 1", "missing: ['password', 'email']",
    "https://example.org:8443/path?at=@", "side=left12", "unicode=123456", "bearer of news",
    "wrong password", "-----BEGIN CERTIFICATE-----MII=",
    "error: HTTPS_PORT: '0' is not a port -> write the port that visitors type: HTTPS_PORT=443",
]  # fmt: skip


def cases():
    for form in FORMS.values():
        for name in ["password", "X-Api-Key", "pwd"]:
            yield form.replace("KEY", name)
    for form in ("?x=1&KEY=hunter2a&user=anna", "KEY: hunter2a", "('KEY', 'hunter2a')"):
        for name in NAMES + UNCLEAR:
            yield form.replace("KEY", name)
    yield from (text for text, _ in TEXTS)
    yield from INNOCENT


@pytest.mark.parametrize("name", ["password", "X-Api-Key", "pwd", "user_jwt", "session_id"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_secret_is_masked_in_every_form(form, name):
    masked = mask(form.replace("KEY", name))
    assert "***" in masked
    assert "unter2" not in masked
    assert "anna" in masked


@pytest.mark.parametrize("name", [*NAMES, *UNCLEAR])
def test_a_secret_is_masked_by_every_name(name):
    assert mask(f"?x=1&{name}=hunter2a&user=anna") == f"?x=1&{name}=***&user=anna"
    assert "hunter2a" not in mask(f"[('{name}', 'hunter2a')]")
    assert "hunter2a" not in mask(f"{{'{name}': ['hunter2a']}}")
    assert is_sensitive(name, "hunter2a")


@pytest.mark.parametrize(("text", "masked"), TEXTS)
def test_secrets_in_texts(text, masked):
    assert mask(text) == masked
    assert mask(masked) == masked


@pytest.mark.parametrize("text", INNOCENT)
def test_what_is_no_secret_stays(text):
    assert mask(text) == text


@pytest.mark.parametrize(
    ("key", "value"), [("code", 404), ("code", "E12"), ("passed", "yes"), ("tokens", 12)]
)
def test_fields_that_are_no_secret_stay(key, value):
    assert not is_sensitive(key, value)


def test_a_private_key_is_masked_over_its_lines():
    begin, end = (f"-----{word} RSA PRIVATE KEY-----" for word in ("BEGIN", "END"))
    text = f"{begin}\nProc-Type: 4,ENCRYPTED\n\nMII+/=\n{end}\nx"
    for key in (text, repr(text)):
        masked = mask(key)
        assert "MII" not in masked
        assert masked.startswith(("-----BEGIN", "'-----BEGIN"))
        assert "KEY-----***-----END" in masked


HOSTILE = [
    "token", "token ", "token[]", "token\\", "token%25", "token'", "secret_", "pass-", "code=",
    "code='", "code=1", "password='", 'password=["', "password=[(", "('password", "('code','",
    "('a.", "--a-", "-", "a://", "a://b:", "bearer ", "cookie: \n", "eyJ", "eyJ-", "eyJaaaaaaaa.",
    "ghp_", "-----BEGIN PRIVATE KEY-----", "\\", "'", "=", "%25",
]  # fmt: skip


@pytest.mark.parametrize("part", HOSTILE)
def test_masking_takes_linear_time(part):
    """A megabyte, of which log lines keep 8 kB, takes seconds and not hours."""
    small, large = (took(part, size) for size in (100_000, 1_000_000))
    assert large < max(30 * small, 1)
    assert large < 20


def took(part, size):
    text = part * (size // len(part))
    begin = time.thread_time()
    mask(text)
    return time.thread_time() - begin


@pytest.fixture
def nginx_filter(tmp_path):
    """nginx_filter(bytes, argument, …): what the filter of nginx's error log makes of it."""
    script = tmp_path / "mask.pl"
    text = (ROOT / "nginx/mask.pl").read_text()
    script.write_text(text.replace("/etc/nginx/sensitive.txt", masking.TABLE))

    def run(lines, *arguments):
        command = ["perl", script, *arguments]
        answer = subprocess.run(command, input=lines, capture_output=True, check=True, timeout=30)
        return answer.stderr

    return run


def test_nginx_masks_as_the_application_does(nginx_filter):
    """By the same table, in Perl: nginx's error log."""
    texts = [text for text in cases() if "\n" not in text]
    lines = nginx_filter("".join(f"{text}\n" for text in texts).encode())
    assert lines.decode().splitlines() == [mask(text) for text in texts]


def test_control_characters_are_visible_in_nginx_lines(nginx_filter):
    lines = nginx_filter(b"a\x1b[2K\xc2\x9b\r\0\t\xffb\nno end")
    assert lines == rb"a\x1b[2K\xc2\x9b\x0d\x00\x09\xffb" + b"\nno end\n"


def test_nginx_lines_are_shipped_as_they_are_shown(nginx_filter, tmp_path):
    """But not those of the entry point: the forwarder takes lines of nginx alone."""
    line = b'2026/11/30 01:05:42 [error] 8#8: *5 x, request: "GET /?pwd=hunter2 HTTP/1.1"\n'
    first = "2026/11/30 01:05:43 [alert] 1#1: one line may be lost"
    shown = nginx_filter(line + b"made a certificate\n", tmp_path / "error.log", first)
    masked = line.replace(b"hunter2", b"***")
    first = f"{first}\n".encode()
    assert shown == first + masked + b"made a certificate\n"
    assert (tmp_path / "error.log").read_bytes() == first + masked


@pytest.mark.parametrize("value", ['"x', "'x", "[x", "(x", "{x", '\\"x', "['x"])
def test_what_is_not_closed_ends_with_its_line(nginx_filter, value):
    text = f"token={value}\nRuntimeError: what was wrong"
    assert mask(text) == "token=***\nRuntimeError: what was wrong"
    assert nginx_filter(f"{text}\n".encode()).decode() == f"{mask(text)}\n"


def test_no_expression_is_too_long_for_nginx():
    """A parameter of its configuration has to fit into 4096 bytes (ngx_conf_file.c)."""
    for expression in masking.SECTIONS["MASKED"]:
        assert len(re.sub(r'(["\\])', r"\\\1", expression)) < 3000
        assert re.compile(expression).groups == 1
