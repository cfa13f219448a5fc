"""The store's URL: what is read from it, and what is told where it does not fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service_kit.store_url import Login, StoreUrl, Tls, read_store_url, show_address

SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("none", "none"),
        ("redis://host", "redis://host:6379/0"),
        ("REDIS://host/", "redis://host:6379/0"),
        ("redis://[::1]", "redis://[::1]:6379/0"),
        ("rediss://u:p@[2001:DB8::1]:7000/3", "rediss://***@[2001:db8::1]:7000/3"),
        ("rediss://h?ssl_ca_certs=/etc/a%20b.pem", "rediss://h:6379/0?ssl_ca_certs=/etc/a%20b.pem"),
        ("redis://h?password=p&db=4", "redis://h:6379/4?password=***&db=4"),
        ("unix:///run/a@b.sock?db=2", "unix:///run/a@b.sock?db=2"),
        ("unix://u:p@/run/redis.sock", "unix://***@/run/redis.sock"),
        ("redis+sentinel://a:1,[::1],b/mymaster", "redis+sentinel://a:1,[::1]:26379,b:26379/mymaster/0"),
        ("rediss+cluster://:p@[::1]:7001,b", "rediss+cluster://***@[::1]:7001,b:6379"),
    ],
)
def test_shown(text: str, shown: str) -> None:
    """As text it says where the store is, and nothing that opens it."""
    assert str(read_store_url(text)) == shown
    assert str(read_store_url(shown.replace("***@", "").replace("***", "p"))) == shown.replace("***@", "")


def test_hosts_and_logins() -> None:
    """The login before the hosts is for Redis; Sentinels have their own, and TLS unless it is turned off."""
    url = read_store_url(
        "rediss+sentinel://u:p%40ss@a:1,[::1]:2,b/mymaster/3?sentinel_username=s&sentinel_password=q%26+&ssl_ca_certs=/ca"
    )

    tls = Tls(ca_file="/ca")
    assert url.hosts == (("a", 1), ("::1", 2), ("b", 26379))
    assert (url.master, url.db) == ("mymaster", 3)
    assert (url.login, url.sentinel_login) == (Login("u", "p@ss"), Login("s", "q&+"))
    assert (url.tls, url.sentinel_tls) == (tls, tls)


@pytest.mark.parametrize(
    ("text", "tls", "sentinel_tls"),
    [
        ("redis+sentinel://a/m", None, None),
        ("redis+sentinel://a/m?sentinel_tls=true&ssl_ca_certs=/ca", None, Tls("/ca")),
        ("rediss+sentinel://a/m?sentinel_tls=no", Tls(), None),
        ("rediss://a?ssl_cert_reqs=none&ssl_check_hostname=false", Tls(checks_name=False, verifies=False), None),
        (
            "rediss+cluster://a?ssl_certfile=/c&ssl_keyfile=/k&ssl_password=p",
            Tls(cert_file="/c", key_file="/k", key_password="p"),
            None,
        ),
    ],
)
def test_tls(text: str, tls: Tls | None, sentinel_tls: Tls | None) -> None:
    """TLS by the scheme, its files by parameters, and for Sentinels apart where the two differ."""
    url = read_store_url(text)

    assert (url.tls, url.sentinel_tls) == (tls, sentinel_tls)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "use one of redis://, rediss://"),
        ("localhost:6379", "use one of"),
        ("http://h", "use one of"),
        ("redis://", "the host is missing"),
        ("redis:///0", "the host is missing"),
        ("redis://:6379", "the host has a port and no name"),
        ("redis://h:", "the port of the host is no number from 1 to 65535"),
        ("redis://h:0", "the port of the host"),
        ("redis://h:65536", "the port of the host"),
        ("redis://h:-1", "the port of the host"),
        ("redis://h:٦٣٧٩", "the port of the host"),
        ("redis://h:6379x/0", "the port of the host"),
        ("redis://::1:6379", r"IPv6 address stands in brackets: \[::1\]:6379"),
        ("redis://[::1", "stands in brackets"),
        ("redis://[::g]:1", "no IPv6 address between its brackets"),
        ("redis://[::1]6379", "stands in brackets"),
        ("redis://a b", "no spaces"),
        ("redis://a\nb", "no spaces"),
        ("redis://a*b", "no host's name"),
        ("redis://a,b", r"names one server: use redis\+sentinel:// or redis\+cluster://"),
        ("rediss://a,b", r"use rediss\+sentinel"),
        ("redis+cluster://a:1,b:99999,c", "the port of host 2 "),
        ("redis+cluster://a,,c", "host 2 is missing"),
        ("redis+cluster://a/1", "no database but 0"),
        ("redis+cluster://a?db=1", "parameter 1 is not known"),
        ("redis://h/x", "the database is a number"),
        ("redis://h/0/1", "the database is a number"),
        ("redis://h?db=x", "the database is a number"),
        ("redis+sentinel://h", "needs the master's name"),
        ("redis+sentinel://h//0", "needs the master's name"),
        ("redis+sentinel://h/m/x", "the database is a number"),
        ("redis+sentinel://h/m?ssl_ca_certs=/ca", "write rediss for redis, or sentinel_tls=true"),
        ("redis+sentinel://h/m?sentinel_tls=maybe", "sentinel_tls is true or false"),
        ("redis://h?ssl_ca_certs=/ca", "ssl_ca_certs needs TLS: write rediss for redis"),
        ("redis://h?sentinel_password=p", "parameter 1 is not known"),
        ("rediss://h?db=0&ssl_ca_cert=/ca", "parameter 2 is not known: use username, password, db, ssl_ca_certs"),
        ("rediss://h?ssl_ca_certs", "ssl_ca_certs has no value"),
        ("rediss://h?ssl_ca_certs=", "ssl_ca_certs has no value"),
        ("rediss://h?db=1&db=2", "db is there twice"),
        ("rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs is required or none"),
        ("rediss://h?ssl_check_hostname=maybe", "ssl_check_hostname is true or false"),
        ("rediss://h?ssl_keyfile=/k", "ssl_keyfile needs ssl_certfile"),
        ("unix://run/redis.sock", "the socket's whole path"),
        ("unix://", "the socket's whole path"),
        ("redis://:pa/ss@h", "%2F"),
        ("redis://:pa#ss@h", "%2F"),
        ("redis://:pa?ss@h", "the host has a port and no name"),
    ],
)
def test_what_does_not_fit(text: str, says: str) -> None:
    """Each mistake is told, in one line."""
    with pytest.raises(ValueError, match=says) as told:
        read_store_url(text)
    assert "\n" not in str(told.value)


def _outcome(text: str) -> str:
    """All that is ever printed of a URL."""
    try:
        url = read_store_url(text)
    except ValueError as error:
        return str(error)
    return f"{url} {url!r}"


@pytest.mark.parametrize("scheme", [*SCHEMES, "unix", "http", ""])
@pytest.mark.parametrize(
    "form",
    [
        "{}://user:{}@h/m",
        "{}://:{}@h:99999/m",
        "{}://user:{}",
        "{}://user:{}@",
        "{}://h/m?password={}",
        "{}://h/m?sentinel_password={}",
        "{}://h/m?passwort={}",
        "{}://h/m?{}",
        "{}://{}@[::g]/m",
        "{}:/user:{}@h/m",
    ],
)
@pytest.mark.parametrize("special", ["", "/", "?", "#", "@", ":", "%", "&", "=", "[", "]", ",", " ", "%2F", "%40"])
def test_no_part_of_a_password_is_told(scheme: str, form: str, special: str) -> None:
    """However it is written, and whatever is wrong beside it."""
    if (special, form) == ("@", "{}://user:{}"):
        return  # the password s3cr3t, and a host
    told = _outcome(form.format(scheme, f"s3cr3t{special}Pa55w0rd"))

    assert "s3cr3t" not in told
    assert "Pa55w0rd" not in told


@given(st.text("ab1:/?#@[],.%=& ", max_size=30), st.sampled_from(SCHEMES))
def test_any_text_is_read_or_refused(text: str, scheme: str) -> None:
    """Nothing but ValueError, and what is read has hosts with ports."""
    try:
        url: StoreUrl = read_store_url(f"{scheme}://{text}")
    except ValueError:
        return
    assert url.hosts
    assert all(host and 0 < port < 65536 and show_address((host, port)) in str(url) for host, port in url.hosts)
