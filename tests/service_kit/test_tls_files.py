"""The files that a store's URL names, looked at before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from service_kit.store_url import read_store_url
from service_kit.tls_files import check_files
from tests.support.authority import an_authority

URLS = ("rediss://h?", "rediss+sentinel://h/m?", "rediss+cluster://h?", "redis+sentinel://h/m?sentinel_tls=true&")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a certificate of it with its key, that key with a password, and another key."""
    folder, authority = tmp_path_factory.mktemp("tls"), an_authority()
    certificate, key = authority.certify("127.0.0.1")
    _, other_key = authority.certify("127.0.0.1")
    loaded = serialization.load_pem_private_key(key, None)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    locked = loaded.private_bytes(*form, serialization.BestAvailableEncryption(b"hush"))
    contents = {"ca": authority.certificate, "cert": certificate, "key": key, "locked": locked, "other": other_key}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "both").write_bytes(certificate + key)
    return folder


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize(
    "options",
    [
        "ssl_ca_certs={0}/ca",
        "ssl_certfile={0}/cert&ssl_keyfile={0}/key",
        "ssl_certfile={0}/both",
        "ssl_certfile={0}/cert&ssl_keyfile={0}/locked&ssl_password=hush",
    ],
)
def test_good_files(folder: Path, url: str, options: str) -> None:
    """Authorities, and a certificate with its key in one file or in two."""
    check_files(read_store_url(url + options.format(folder)))


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("ssl_ca_certs={0}/nowhere", "ssl_ca_certs: No such file"),
        ("ssl_ca_certs={0}", "ssl_ca_certs: "),
        ("ssl_ca_certs={0}/key", "ssl_ca_certs: no certificate in PEM"),
        ("ssl_certfile={0}/nowhere", "ssl_certfile, ssl_keyfile: No such file"),
        ("ssl_certfile={0}/cert&ssl_keyfile={0}/nowhere", "ssl_certfile, ssl_keyfile: No such file"),
        ("ssl_certfile={0}/cert", "ssl_certfile, ssl_keyfile: not a certificate with its key in PEM"),
        ("ssl_certfile={0}/cert&ssl_keyfile={0}/other", "ssl_certfile, ssl_keyfile: not a certificate with its key"),
        ("ssl_certfile={0}/cert&ssl_keyfile={0}/locked", "or the wrong ssl_password"),
        ("ssl_certfile={0}/cert&ssl_keyfile={0}/locked&ssl_password=hushes", "or the wrong ssl_password"),
    ],
)
def test_unfit_files(folder: Path, url: str, options: str, says: str) -> None:
    """Each is told in one line, without the password."""
    with pytest.raises(ValueError, match=says) as told:
        check_files(read_store_url(url + options.format(folder)))

    assert "\n" not in str(told.value)
    assert "hush" not in str(told.value)


def test_without_tls_there_are_none() -> None:
    """Nothing is looked at."""
    check_files(read_store_url("redis://h"))
    check_files(read_store_url("none"))
