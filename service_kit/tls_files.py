"""Whether TLS could begin with the files that a store's URL names. Told at start, and not at each attempt."""

from __future__ import annotations

from service_kit.store_url import StoreUrl, Tls


def check_files(url: StoreUrl) -> None:
    """Raises ValueError, in one line, where a file is not there or is something else."""
    for tls in (url.tls, url.sentinel_tls):
        if tls is not None:
            _check(tls)


def _check(tls: Tls) -> None:
    import ssl  # late: few stores have TLS, and every start would wait for it

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if tls.ca_file is not None:
        try:
            context.load_verify_locations(cafile=tls.ca_file)
        except OSError as error:
            raise ValueError(f"ssl_ca_certs: {_why(error, 'no certificate in PEM')}") from error
    if tls.cert_file is not None:
        try:
            # A password function, since without one OpenSSL asks at the terminal.
            context.load_cert_chain(tls.cert_file, tls.key_file, lambda: tls.key_password or "")
        except (OSError, ValueError) as error:
            what = _why(error, "not a certificate with its key in PEM, or the wrong ssl_password")
            raise ValueError(f"ssl_certfile, ssl_keyfile: {what}") from error


def _why(error: Exception, otherwise: str) -> str:
    """What the system says; what OpenSSL says, which is an OSError too, tells nobody anything."""
    if type(error).__module__ != "ssl" and isinstance(error, OSError) and error.strerror is not None:
        return error.strerror
    return otherwise
