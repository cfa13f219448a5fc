"""Origins, in the one spelling that browsers send (Fetch standard, section 3.2; HTML standard, serialization)."""

from __future__ import annotations

import ipaddress
import re

ANY = "*"
WILDCARD = "*."
"""What an origin's host begins with if it stands for every subdomain."""

_PARTS = re.compile(r"(?P<scheme>[a-z]+)://(?P<host>\[[0-9a-f:.]+\]|[^\[\]:/?#@\\\s]+)(:(?P<port>[0-9]{1,5}))?")
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def normalised(value: str) -> str:
    """The origin as a browser would send it: in lower case, without its scheme's own port.

    Raises ValueError for what no browser sends, and so could never match.
    """
    if value == ANY:
        return value
    small = value.lower()
    parts = _PARTS.fullmatch(small)
    if parts is None or parts["scheme"] not in _DEFAULT_PORTS:
        raise ValueError(_what_is_wrong(small))
    port = _port(parts["port"], parts["scheme"])
    return f"{parts['scheme']}://{_host(parts['host'])}{port}"


def pattern(origin: str) -> str | None:
    """A regular expression for the subdomains that the origin stands for; None if it is one origin."""
    scheme, _, host = origin.partition("://")
    if not host.startswith(WILDCARD):
        return None
    return rf"{scheme}://([a-z0-9_-]+\.)+{re.escape(host.removeprefix(WILDCARD))}"


def _what_is_wrong(small: str) -> str:
    if small == "null":
        return "null is the origin of every local file and sandboxed frame: name origins, as SCHEME://HOST[:PORT]"
    start = _PARTS.match(small)
    if start is not None and small[start.end() : start.end() + 1] in ("/", "?", "#"):
        return f"an origin is SCHEME://HOST[:PORT], with nothing behind it: {start[0]}"
    return "an origin is SCHEME://HOST[:PORT] with http or https, or *"


def _port(text: str | None, scheme: str) -> str:
    if text is None or int(text) == _DEFAULT_PORTS[scheme]:
        return ""
    if not 1 <= int(text) <= 65535:
        raise ValueError("the port is not a number from 1 to 65535")
    return f":{int(text)}"


def _host(host: str) -> str:
    if host.startswith("["):
        return f"[{ipaddress.IPv6Address(host[1:-1])}]"
    name = host.removeprefix(WILDCARD)
    if "*" in name:
        raise ValueError("a * stands for subdomains, at the front: https://*.example.com")
    if not name.isascii():
        raise ValueError(f"browsers send the host {_in_ascii(name)}")
    if not _HOST.fullmatch(name):
        raise ValueError("this is not the name of a host")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):  # a browser takes such a host for an IPv4 address, or for an error
        ipaddress.IPv4Address(host)
    elif host != name and len(labels) == 1 and name != "localhost":
        raise ValueError(f"every host under .{name} is too many: name a domain, as in https://*.example.com")
    return host


def _in_ascii(name: str) -> str:
    try:
        return name.encode("idna").decode()
    except UnicodeError:
        return "in ASCII (xn--…)"
