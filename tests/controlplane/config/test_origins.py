"""Origins: what a browser would send, and what none ever does."""

from __future__ import annotations

import re

import pytest

from controlplane.config.origins import normalised, pattern


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("*", "*"),
        ("https://app.example.com", "https://app.example.com"),
        ("HTTPS://App.Example.COM", "https://app.example.com"),
        ("https://app.example.com:443", "https://app.example.com"),
        ("http://app.example.com:80", "http://app.example.com"),
        ("http://app.example.com:443", "http://app.example.com:443"),
        ("https://app.example.com:08443", "https://app.example.com:8443"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("https://*.Example.com:443", "https://*.example.com"),
        ("http://*.localhost:3000", "http://*.localhost:3000"),
        ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
        ("http://[0:0:0:0:0:0:0:1]:3000", "http://[::1]:3000"),
        ("http://[FD00::A]", "http://[fd00::a]"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("https://a_b.example", "https://a_b.example"),
    ],
)
def test_an_origin_is_read_as_browsers_send_it(written: str, sent: str) -> None:
    """In lower case, without the scheme's own port, an IPv6 address in its short form."""
    assert normalised(written) == sent


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("", "SCHEME://HOST"),
        ("app.example.com", "SCHEME://HOST"),
        ("//app.example.com", "SCHEME://HOST"),
        ("ftp://app.example.com", "http or https"),
        ("https://", "SCHEME://HOST"),
        ("https://a.example/", "nothing behind it: https://a.example"),
        ("https://a.example:8443/app", "nothing behind it: https://a.example:8443"),
        ("https://a.example?x", "nothing behind it"),
        ("https://a.example#x", "nothing behind it"),
        ("https://user@a.example", "SCHEME://HOST"),
        ("https://a.example:", "SCHEME://HOST"),
        ("https://a.example:*", "SCHEME://HOST"),
        ("https://a.example:https", "SCHEME://HOST"),
        ("https://a.example:0", "1 to 65535"),
        ("https://a.example:65536", "1 to 65535"),
        (" https://a.example", "SCHEME://HOST"),
        ("https://a .example", "SCHEME://HOST"),
        ("https://a.example\n", "SCHEME://HOST"),
        ("https://a.example,https://b.example", "SCHEME://HOST"),
        ("null", "sandboxed frame"),
        ("https://*", "at the front"),
        ("https://*.*.example.com", "at the front"),
        ("https://api*.example.com", "at the front"),
        ("https://a.*.com", "at the front"),
        ("https://*.com", "too many"),
        ("https://*.", "name of a host"),
        ("https://.example.com", "name of a host"),
        ("https://a..example", "name of a host"),
        ("https://-a.example", "name of a host"),
        ("https://a%2eexample", "name of a host"),
        (f"https://{'a' * 64}.example", "name of a host"),
        ("https://bücher.example", "xn--bcher-kva.example"),
        ("http://127.1", "127.1"),
        ("http://2130706433", "2130706433"),
        ("http://0x7f.0x1", "0x7f.0x1"),
        ("http://010.0.0.1", "010.0.0.1"),
        ("http://*.0.0.1", "0.0.1"),
        ("http://[::g]", "SCHEME://HOST"),
        ("http://[::1::2]", "::1::2"),
    ],
)
def test_what_no_browser_sends_is_refused(written: str, hint: str) -> None:
    """Such an origin would never match, and nobody would know why."""
    with pytest.raises(ValueError, match=re.escape(hint)):
        normalised(written)


@pytest.mark.parametrize(
    ("origin", "is_meant"),
    [
        ("https://a.example.com", True),
        ("https://b-2.a.example.com", True),
        ("https://example.com", False),
        ("https://.example.com", False),
        ("https://aexample.com", False),
        ("https://a.exampleXcom", False),
        ("https://a.example.com.evil.test", False),
        ("https://a.example.com:8443", False),
        ("http://a.example.com", False),
        ("https://evil.test/.example.com", False),
        ("https://evil.test?.example.com", False),
        ("https://evil.test, https://a.example.com", False),
        ("https://evil.test\n.example.com", False),
    ],
)
def test_a_wildcard_stands_for_subdomains_alone(origin: str, is_meant: bool) -> None:
    """At any depth, but not for the domain itself, another port or scheme, or a name that only looks like it."""
    found = pattern("https://*.example.com")

    assert found is not None
    assert bool(re.fullmatch(found, origin)) is is_meant


def test_a_port_belongs_to_the_pattern() -> None:
    """A wildcard with a port means that port; a plain origin has no pattern."""
    found = pattern("http://*.localhost:3000")

    assert found is not None
    assert re.fullmatch(found, "http://app.localhost:3000")
    assert not re.fullmatch(found, "http://app.localhost")
    assert pattern("https://app.example.com") is pattern("*") is None
