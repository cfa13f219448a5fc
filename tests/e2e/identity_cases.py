"""Who is calling, as one table of requests and answers that holds in both modes of `auth.verified_by`."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import Algorithm, get_default_algorithms

from tests.support.gateway import SECRET, a_route, default_document, unique

MODES = [pytest.param(mode, marks=pytest.mark.xdist_group(f"identity-{mode}")) for mode in ("authz_service", "envoy")]
NEW_SECRET, OLD_SECRET = (
    f"the-{age}-secret-of-two-side-by-side-with-the-64-bytes-that-hs512-needs-{age}" for age in "no"
)
SECRETS = {"JWT_SECRET": SECRET, "NEW_SECRET": NEW_SECRET, "OLD_SECRET": OLD_SECRET}
API_KEY, DEAR_KEY = "an-api-key-of-a-partner", "another-api-key-for-a-pro"
STOLEN, REVOKED_BEFORE = "stolen-token", 1_700_000_000

ISSUER = {name: f"https://{name}.test/" for name in ("platform", "lenient", "idp", "pem", "curves", "edge", "strict")}

Headers = list[tuple[str, str]]
Caller = tuple[str, str]
"""A subject and a tier, as the upstream sees them."""


# -- keys and tokens


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Signer:
    """A private key with a name, and its public half in the forms that a configuration takes."""

    def __init__(self, algorithm: str, kid: str | None, key: Any) -> None:
        self.algorithm, self.kid, self._key = algorithm, kid, key

    def sign(self, claims: Mapping[str, Any] | bytes, **header: Any) -> str:
        return compact({"alg": self.algorithm} | ({"kid": self.kid} if self.kid else {}) | header, claims, self._key)

    @property
    def jwk(self) -> dict[str, Any]:
        algorithm: Any = get_default_algorithms()[self.algorithm]
        jwk: dict[str, Any] = json.loads(type(algorithm).to_jwk(self._key.public_key()))
        return jwk | ({"kid": self.kid} if self.kid else {})

    @property
    def pem(self) -> str:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        pem: bytes = self._key.public_key().public_bytes(serialization.Encoding.PEM, form)
        return pem.decode()


def compact(header: Mapping[str, Any] | bytes, claims: Mapping[str, Any] | bytes, key: Any = SECRET) -> str:
    """A validly signed token of exactly this header and payload, whatever they say; JSON text is taken as it is."""
    texts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)]
    signed = ".".join(base64url(text) for text in texts)
    return f"{signed}.{base64url(signature(algorithm_of(header), signed.encode(), key))}"


def algorithm_of(header: Mapping[str, Any] | bytes) -> str:
    return str(header.get("alg", "HS256")) if isinstance(header, Mapping) else "HS256"


def signature(algorithm: str, data: bytes, key: Any) -> bytes:
    if isinstance(key, str | bytes):
        digest = {"HS384": hashlib.sha384, "HS512": hashlib.sha512}.get(algorithm, hashlib.sha256)
        return hmac.new(key.encode() if isinstance(key, str) else key, data, digest).digest()
    implementation: Algorithm = get_default_algorithms()[algorithm]
    return implementation.sign(data, key)


RSA = Signer("RS256", "r1", rsa.generate_private_key(65537, 2048))
PSS = Signer("PS256", "r1", RSA._key)
PEM = Signer("ES256", None, ec.generate_private_key(ec.SECP256R1()))
P384 = Signer("ES384", "p384", ec.generate_private_key(ec.SECP384R1()))
P521 = Signer("ES512", "p521", ec.generate_private_key(ec.SECP521R1()))
STRICT = Signer("ES256", "s1", ec.generate_private_key(ec.SECP256R1()))


def edwards(kid: str) -> Signer:
    return Signer("EdDSA", kid, ed25519.Ed25519PrivateKey.generate())


EDGE = edwards("e1")


def claims(**more: Any) -> dict[str, Any]:
    """Good claims of a new caller; one given as None is left out."""
    now = int(time.time())
    made = {"sub": unique(), "tier": "pro", "iat": now, "exp": now + 600} | more
    return {name: value for name, value in made.items() if value is not None}


# -- a source of keys


class KeySource:
    """A `jwks_uri` on this machine, which counts who asks and can be made to fail."""

    def __init__(self, *signers: Signer) -> None:
        self.publish(*signers)
        self.hits: list[float] = []
        self.status = 200
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                source.hits.append(time.monotonic())
                body = source.body if source.status == 200 else b""
                self.send_response(source.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}/keys"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def publish(self, *signers: Signer) -> None:
        self.body = json.dumps({"keys": [signer.jwk for signer in signers]}).encode()

    def __enter__(self) -> KeySource:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


# -- documents


def document(mode: str, providers: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The shipped configuration with limits out of the way, API keys, and a route for each way to ask for callers."""
    made = default_document()
    made["auth"] |= {"verified_by": mode, "api_keys": [_api_key("partner", API_KEY, "free")]}
    made["auth"]["api_keys"].append(_api_key("dear", DEAR_KEY, "pro"))
    if providers:
        made["auth"]["providers"] = list(providers)
    made["limits"]["tiers"] = {
        tier: {"rps": 1_000_000, "rpm": 1_000_000, "burst": 1_000_000} for tier in made["limits"]["tiers"]
    }
    made["routes"] += [
        a_route("required", "discovery", "required"),
        a_route("optional", "discovery"),
        a_route("open", "discovery", "none"),
        a_route("pro", "discovery", "required", tiers=["pro", "enterprise"]),
        a_route("pro-or-nobody", "discovery", tiers=["pro", "anonymous"]),
        a_route("pro-optional", "discovery", tiers=["pro"]),
        a_route("scoped", "discovery", "required", scopes=["read", "write"]),
        a_route("scoped-optional", "discovery", scopes=["read"]),
        a_route("claimed", "discovery", "required", claims={"plan": "gold", "level": 3, "verified": True}),
        a_route("keys-only", "discovery", "required", providers=["apikey"]),
    ]
    return made


def _api_key(name: str, key: str, tier: str) -> dict[str, str]:
    return {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), "subject": f"key:{name}", "tier": tier}


def many(mode: str, jwks_uri: str) -> dict[str, Any]:
    """Several providers, told apart by their issuers, with a kind of key each; and revocations."""
    unused = [RSA.jwk | {"kid": "enc", "use": "enc"}, {"kty": "EC", "crv": "P-256", "kid": "odd", "x": 1, "key_ops": 5}]
    secrets = [{"kid": "n", "secret": "${NEW_SECRET}"}, {"kid": "o", "secret": "${OLD_SECRET}"}]
    its_own = {"subject": "uid", "tier": "plan", "scopes": "scp"}
    providers: list[dict[str, Any]] = [
        {"name": "platform", "algorithms": ["HS256"], "secret": "${JWT_SECRET}"},
        {"name": "lenient", "algorithms": ["HS512"], "secrets": secrets, "leeway_seconds": 5, "claims": its_own}
        | {"audiences": ["gateway", "https://mobile.test"], "default_tier": "pro"},
        {"name": "idp", "algorithms": ["RS256", "PS256"], "jwks": {"keys": [*unused, RSA.jwk]}},
        {"name": "pem", "algorithms": ["ES256"], "pem": PEM.pem},
        {"name": "curves", "algorithms": ["ES384", "ES512"], "jwks": {"keys": [P384.jwk, P521.jwk]}},
        {"name": "edge", "algorithms": ["EdDSA"], "jwks_uri": jwks_uri},
        {"name": "strict", "algorithms": ["ES256"], "jwks": {"keys": [STRICT.jwk]}, "on_bad_token": "refuse"},
    ]
    made = document(mode, [provider | {"issuer": ISSUER[provider["name"]]} for provider in providers])
    revoked = [{"provider": "platform", "subject": "mallory", "issued_before": REVOKED_BEFORE}]
    made["auth"]["revocations"] = {"jti": [STOLEN], "subjects": revoked}
    trusting = [name for name in ISSUER if name != "strict"]
    next(route for route in made["routes"] if route["name"] == "t-optional")["providers"] = trusting
    made["routes"] += [
        a_route("strict-optional", "discovery"),
        a_route("idp-only", "discovery", "required", providers=["idp"]),
        a_route("idp-optional", "discovery", providers=["idp"]),
    ]
    return made


# -- the table

NOBODY, BAD, FORBIDDEN = "no token", "a bad token", "not allowed"
Makes = Callable[[], tuple[Headers, Caller | str]]


@dataclass(frozen=True)
class Case:
    """A request, and what it makes of its sender. `makes` is called when it is sent: tokens age."""

    name: str
    makes: Makes
    route: str = ""
    """Where it is sent; empty: to a route that requires a caller, and to one that does not."""

    def __str__(self) -> str:
        return self.name


def scheme(token: str, before: str = "Bearer ") -> Headers:
    return [("Authorization", f"{before}{token}")]


def _with_header_of_its_own(name: str, token: str) -> Headers:
    return [(name, "admin"), *scheme(token)]


def good(
    name: str, seen: str = "pro", *, header: Mapping[str, Any] | None = None, route: str = "", **more: Any
) -> Case:
    """A token of the default provider with these claims, which is believed; `seen` is the tier that it gives."""

    def makes() -> tuple[Headers, Caller | str]:
        body = claims(**_called(more))
        return scheme(compact({"alg": "HS256", "typ": "JWT"} | dict(header or {}), body)), (body["sub"], seen)

    return Case(name, makes, route)


def bad(name: str, *, header: Mapping[str, Any] | None = None, key: Any = SECRET, **more: Any) -> Case:
    """A token of the default provider with these claims or header fields, which is not believed."""
    return Case(
        name,
        lambda: (
            scheme(compact({"alg": "HS256", "typ": "JWT"} | dict(header or {}), claims(**_called(more)), key)),
            BAD,
        ),
    )


def _called(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value() if callable(value) else value for name, value in values.items()}


def bad_text(name: str, change: Callable[[str], str]) -> Case:
    """A good token, changed as text."""
    return Case(name, lambda: (scheme(change(compact({"alg": "HS256"}, claims()))), BAD))


def text(name: str, body: str = "", header: str = '{"alg":"HS256"}', outcome: str = BAD) -> Case:
    """A validly signed token of exactly this JSON text; `@` in it stands for good `sub` and `exp` members."""

    def makes() -> tuple[Headers, Caller | str]:
        who = unique()
        members = f'"sub":"{who}","exp":{int(time.time()) + 600}'
        payload = (body or "{@}").replace("@", members).encode("latin-1")
        return scheme(compact(header.encode("latin-1"), payload)), (who, outcome) if outcome != BAD else BAD

    return Case(name, makes)


def request(name: str, headers: Headers, outcome: Caller | str, route: str = "") -> Case:
    return Case(name, lambda: (headers, outcome), route)


def with_token(name: str, headers: Callable[[str], Headers], outcome: str = "", route: str = "") -> Case:
    """A good token of tier pro, in these headers."""

    def makes() -> tuple[Headers, Caller | str]:
        body = claims()
        return headers(compact({"alg": "HS256"}, body)), outcome or (body["sub"], "pro")

    return Case(name, makes, route)


def later(seconds: float) -> Callable[[], float]:
    return lambda: int(time.time()) + seconds


def with_size(size: int) -> Callable[[], str]:
    """A padding claim that makes the token of `good` exactly so long."""

    def padding() -> str:
        empty = compact({"alg": "HS256", "typ": "JWT"}, claims(pad=""))
        guess = (size - len(empty)) * 3 // 4
        for length in range(guess - 8, guess + 8):
            if len(compact({"alg": "HS256", "typ": "JWT"}, claims(pad="x" * length))) == size:
                return "x" * length
        raise AssertionError(f"no padding makes {size} bytes")

    return padding


def other_last(token: str) -> str:
    """Another spelling of the same signature: the last character's unused bits are set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) + 1]


def replaced(index: int, change: Callable[[str], str]) -> Callable[[str], str]:
    def change_one(token: str) -> str:
        parts = token.split(".")
        parts[index] = change(parts[index])
        return ".".join(parts)

    return change_one


def nested(depth: int) -> str:
    return '{@,"x":' + "[" * depth + "]" * depth + "}"


JWT = {"alg": "HS256", "typ": "JWT"}
UNSIGNED = base64url(b'{"alg":"none"}') + "."

TOKENS = [
    # tiers
    *(good(f"tier {tier}", tier, tier=tier) for tier in ("free", "pro", "enterprise", "anonymous")),
    good("no tier is the default one", "free", tier=None),
    good("a tier in upper case", tier="PRO"),
    *(
        good(f"tier {json.dumps(tier)} is the numbers of anonymous", "anonymous", tier=tier)
        for tier in ("platinum", "", " pro", "pro\n", "prö", 3, True, ["pro"], {"pro": True})
    ),
    text("tier null is none that anybody knows", '{@,"tier":null}', outcome="anonymous"),
    # times
    bad("no exp", exp=None),
    bad("exp in the past", exp=later(-1)),
    bad("exp long ago", exp=1),
    bad("exp zero", exp=0),
    bad("exp negative", exp=-1),
    bad("exp as text", exp=lambda: str(int(time.time()) + 600)),
    bad("exp true", exp=True),
    bad("exp a list", exp=lambda: [int(time.time()) + 600]),
    text("exp null", '{"sub":"a","exp":null}'),
    good("exp far away", exp=99_999_999_999),
    good("exp of twenty digits", exp=10**19),
    good("exp with a fraction", exp=later(600.25)),
    text("a number with an exponent", '{@,"x":2e10}', outcome="free"),
    text("exp of more digits than a number has", '{"sub":"a","exp":100000000000000000000000}'),
    text("exp infinite", '{"sub":"a","exp":1e999}'),
    text("exp Infinity", '{"sub":"a","exp":Infinity}'),
    text("exp NaN", '{"sub":"a","exp":NaN}'),
    good("nbf past", nbf=later(-5)),
    bad("nbf future", nbf=later(5)),
    bad("nbf as text", nbf="0"),
    text("nbf null", '{@,"nbf":null}'),
    good("iat future is not an error", iat=later(1000)),
    good("no iat", iat=None),
    good("iat negative", iat=-5),
    bad("iat as text", iat="1"),
    bad("iat true", iat=True),
    text("iat null", '{@,"iat":null}'),
    # sub
    bad("no sub", sub=None),
    bad("sub empty", sub=""),
    bad("sub a number", sub=5),
    bad("sub a list", sub=["a"]),
    text("sub null", '{"sub":null,"exp":99999999999}'),
    good("sub of 256 bytes", sub="s" * 256),
    bad("sub of 257 bytes", sub="s" * 257),
    good("sub of 256 bytes that are not ASCII", sub="ü" * 128),
    bad("sub of 258 bytes that are not ASCII", sub="ü" * 129),
    good("sub with punctuation", sub="auth0|a/b:c@d.e,f g"),
    *(
        bad(f"sub {json.dumps(sub)}", sub=sub)
        for sub in ("a\nb", "a\rb", "a\u0000", "\t", "a\u007f", "a\u0085b", " a", "a ", " ", "\u00a0a", "\ud800")
    ),
    # other claims
    bad("iss a number", iss=5),
    text("iss null", '{@,"iss":null}'),
    bad("jti a number", jti=5),
    text("jti null", '{@,"jti":null}'),
    good("aud is another's business", aud="somebody"),
    good("aud a list", aud=["a", "b"]),
    good("claims of every kind", x={"a": [1, 2.5, True, {"b": "c"}]}, y=[], z={}),
    text("a claim that is null", '{@,"x":null}', outcome="free"),
    text("white space in JSON", ' {\n @ , "x" :\t[ 1 , 2 ] } \r\n', outcome="free"),
    text("escapes in a name", '{@,"\\u0074ier":"pro"}', outcome="pro"),
    text("UTF-8 in a claim", '{@,"name":"J\xc3\xbcrgen"}', outcome="free"),
    # algorithms and keys
    bad("alg none, signed", header={"alg": "none"}),
    bad("alg in other case", header={"alg": "hs256"}),
    *(bad(f"alg {alg}, validly signed", header={"alg": alg}) for alg in ("HS384", "HS512")),
    bad("alg RS256, signed as HS256", header={"alg": "RS256"}, key=SECRET.encode()),
    bad("another secret", key="x" * 41),
    bad("the secret with a newline", key=SECRET + "\n"),
    bad("an empty secret", key=b""),
    good("a kid that nobody knows is of the only key", header={"kid": "what"}),
    text("no alg", header='{"typ":"JWT"}'),
    text("alg null", header='{"alg":null}'),
    text("alg a list", header='{"alg":["HS256"]}'),
    # header fields
    *(
        bad(f"header {name}", header={name: value})
        for name, value in (
            ("crit", ["exp"]),
            ("crit", []),
            ("crit", "exp"),
            ("b64", False),
            ("b64", 0),
            ("b64", "false"),
            ("kid", ""),
            ("kid", 1),
            ("kid", "k" * 257),
            ("typ", 5),
            ("typ", ["JWT"]),
            ("typ", "logout+jwt"),
            ("typ", "application/dpop+JWT"),
            ("cty", 5),
        )
    ),
    bad("a critical field that is there", header={"crit": ["cat"], "cat": "x"}),
    bad("an unencoded payload as RFC 7797 wants it", header={"crit": ["b64"], "b64": False}),
    *(
        text(f"header {name} null", header=f'{{"alg":"HS256","{name}":null}}')
        for name in ("crit", "b64", "kid", "typ", "cty")
    ),
    *(
        good(f"header {name} {json.dumps(value)}", header={name: value})
        for name, value in (
            ("cat", "cl_B7d4PD111AAA"),
            ("nonce", "a"),
            ("ver", "1.0"),
            ("iss", "https://keys.test/"),
            ("sub", "admin"),
            ("aud", ["a"]),
            ("exp", 1),
            ("b64", True),
            ("zip", "DEF"),
            ("enc", "A128GCM"),
            ("cty", "json"),
            ("any", {"thing": [1, None, True, {"at": "all"}]}),
            ("nothing", None),
            ("CRIT", ["exp"]),
            ("x5t", "AAAA"),
            ("x5t#S256", 5),
            ("x5c", ["MIIB" * 100, "+/="]),
            ("x5u", "https://keys.test/"),
            ("jku", "https://keys.test/"),
            ("jwk", {"kty": "oct", "k": "AAAA"}),
        )
    ),
    text("an ignored field with an escape", header='{"alg":"HS256","x5c":["MII\\/B"]}', outcome="free"),
    text("an ignored field that is null", header='{"alg":"HS256","jku":null}', outcome="free"),
    text("an ignored field twice", header='{"alg":"HS256","cat":1,"cat":2}'),
    *(
        good(f"typ {typ}", header={"typ": typ})
        for typ in ("jwt", "JWT", "at+jwt", "application/jwt", "JOSE", "JOSE+JSON", "Bearer", "")
    ),
    good("no typ", header={"kid": "k"}),
    good("cty JWT", header={"cty": "JWT"}),
    # JSON that two readers may read in two ways
    text("a name twice", '{@,"sub":"admin"}'),
    text("a name twice, once escaped", '{@,"su\\u0062":"admin"}'),
    text("a name twice, deep down", '{@,"x":{"a":1,"a":2}}'),
    text("a header name twice", header='{"alg":"HS256","alg":"HS256"}'),
    text("a header name twice, first none", header='{"alg":"none","alg":"HS256"}'),
    text("single quotes", "{@,'tier':'pro'}"),
    text("a trailing comma", "{@,}"),
    text("a name without quotes", '{@,tier:"pro"}'),
    text("a comment", "{@/**/}"),
    text("something behind it", "{@}{}"),
    text("something before it", "x{@}"),
    text("a number with a leading zero", '{@,"x":01}'),
    text("a number with a plus", '{@,"x":+1}'),
    text("a number without a fraction", '{@,"x":1.}'),
    text("a number of 21 digits", '{@,"x":100000000000000000000}'),
    text("a number of 1000 digits", '{@,"x":' + "9" * 1000 + "}"),
    text("a fraction of 100 digits", '{@,"x":0.' + "1" * 100 + "}"),
    text("NaN", '{@,"x":NaN}'),
    text("-Infinity", '{@,"x":-Infinity}'),
    text("True", '{@,"x":True}'),
    text("a control character in text", '{@,"x":"a\x01b"}'),
    text("a tab in text", '{@,"x":"a\tb"}'),
    text("no UTF-8", '{@,"x":"\xff"}'),
    text("an overlong character", '{@,"x":"\xc0\xaf"}'),
    text("an encoded surrogate", '{@,"x":"\xed\xa0\x80"}'),
    text("a byte order mark", "\xef\xbb\xbf{@}"),
    text("a byte order mark in the header", header='\xef\xbb\xbf{"alg":"HS256"}'),
    text("a list", "[1]"),
    text("a text", '"sub"'),
    text("null", "null"),
    text("nothing in braces", "{}"),
    text("a form feed as white space", "{\x0c@}"),
    text("16 levels", nested(15), outcome="free"),
    text("17 levels", nested(16)),
    text("1000 levels", nested(1000)),
    text("512 containers", '{@,"x":[' + ",".join(["[]"] * 510) + "]}", outcome="free"),
    text("513 containers", '{@,"x":[' + ",".join(["[]"] * 511) + "]}"),
    # the text itself
    bad_text("the signature's last character in another spelling", other_last),
    bad_text("padding", lambda token: token + "="),
    bad_text("white space inside", lambda token: token.replace(".", ". ", 1)),
    bad_text("a tab inside", lambda token: token.replace(".", ".\t", 1)),
    bad_text("a fourth segment", lambda token: token + ".AAAA"),
    bad_text("a fourth segment that is empty", lambda token: token + "."),
    bad_text("a segment before", lambda token: "." + token),
    bad_text("no signature", lambda token: token.rpartition(".")[0]),
    bad_text("an empty signature", lambda token: token.rpartition(".")[0] + "."),
    bad_text("a short signature", lambda token: token[:-4]),
    bad_text("a long signature", lambda token: token + "AAAA"),
    bad_text("an empty payload", replaced(1, lambda _: "")),
    bad_text("an empty header", replaced(0, lambda _: "")),
    bad_text("another payload", replaced(1, lambda _: base64url(b'{"sub":"admin","exp":99999999999}'))),
    bad_text("the alphabet of base64", replaced(2, lambda part: part[:-2] + "+/")),
    bad_text("alg none and no signature", lambda token: UNSIGNED + token.split(".")[1] + "."),
    bad_text("only dots", lambda _: ".."),
    bad_text("no token at all", lambda _: "abc"),
    bad_text("bytes over ASCII", lambda token: token + "\xe9"),
    bad_text("quotes", lambda token: f'"{token}"'),
    good("8 KiB", pad=with_size(8192)),
    bad("over 8 KiB", pad=with_size(8193)),
    bad("32 KiB", pad="x" * 24000),
    # the header that carries it
    *(with_token(f"scheme {name}", partial(scheme, before=name)) for name in ("bearer ", "BEARER ")),
    with_token("two spaces behind the scheme", lambda token: scheme(token, "Bearer  ")),
    with_token("a tab behind the scheme", lambda token: scheme(token, "Bearer\t"), BAD),
    with_token("no space behind the scheme", lambda token: scheme(token, "Bearer"), NOBODY),
    with_token("another scheme with the token", lambda token: scheme(token, "Token "), NOBODY),
    with_token("the scheme in the middle", lambda token: scheme(token, "Basic Bearer "), NOBODY),
    with_token("the token alone", lambda token: scheme(token, ""), NOBODY),
    with_token("two Authorization headers", lambda token: scheme(token) * 2, BAD),
    with_token("a good one and another scheme", lambda token: [*scheme(token), ("authorization", "Basic QQ==")], BAD),
    with_token("another scheme and a good one", lambda token: [("authorization", "Basic QQ=="), *scheme(token)], BAD),
    with_token("a comma behind", lambda token: scheme(token + ","), BAD),
    with_token("a comma before", lambda token: scheme(token, "Bearer ,"), BAD),
    with_token("two tokens and a comma", lambda token: scheme(f"{token}, Bearer {token}"), BAD),
    with_token("two tokens", lambda token: scheme(f"{token} {token}"), BAD),
    with_token("in a cookie", lambda token: [("Cookie", f"access_token={token}")], NOBODY),
    with_token("in Proxy-Authorization", lambda token: [("Proxy-Authorization", f"Bearer {token}")], NOBODY),
    request("nothing", [], NOBODY),
    request("an empty Authorization", [("Authorization", "")], NOBODY),
    request("Basic", [("Authorization", "Basic dTpw")], NOBODY),
    request("Digest with a comma", [("Authorization", 'Digest a="b", c="d"')], BAD),
    request("Bearer alone", [("Authorization", "Bearer")], BAD),
    request("an opaque token", [("Authorization", "Bearer 0123456789abcdef")], BAD),
    # identity headers of the client's own
    *(
        request(f"the client's own {name}", [(name, "admin"), ("X-User-Tier", "enterprise")], NOBODY)
        for name in ("X-User-ID", "x_user_id", "X-User_Id", "X-MGW-Identified", "X_User_Tier", "X-User-Issuer")
    ),
    *(
        with_token(f"a token and the client's own {name}", partial(_with_header_of_its_own, name))
        for name in ("X-User-ID", "x_user_id", "X-User-Tier", "x_user_tier", "X-User-Issuer", "x_user_issuer")
    ),
    # API keys
    request("an API key", [("X-API-Key", API_KEY)], ("key:partner", "free")),
    request("an API key with a tier", [("x-api-key", DEAR_KEY)], ("key:dear", "pro")),
    request("a wrong API key", [("X-API-Key", API_KEY + "x")], BAD),
    request("an empty API key", [("X-API-Key", "")], BAD),
    request("two API keys", [("X-API-Key", API_KEY), ("X-API-Key", API_KEY)], BAD),
    request("an API key as a token", [("Authorization", f"Bearer {API_KEY}")], BAD),
    request(
        "an API key and another scheme",
        [("X-API-Key", API_KEY), ("Authorization", "Basic QQ==")],
        ("key:partner", "free"),
    ),
    with_token("a token before an API key", lambda token: [("X-API-Key", API_KEY), *scheme(token)]),
    with_token("a token before a wrong API key", lambda token: [("X-API-Key", "wrong"), *scheme(token)]),
    request("a bad token before an API key", [("X-API-Key", API_KEY), ("Authorization", "Bearer a.b.c")], BAD),
    # routes
    good("a tier that is allowed", route="pro"),
    good("a tier that is allowed, in upper case", route="pro", tier="PRO"),
    good("a tier that is not allowed", FORBIDDEN, route="pro", tier="free"),
    good("an unknown tier where one is asked for", FORBIDDEN, route="pro", tier="platinum"),
    good("the default tier where another is asked for", FORBIDDEN, route="pro", tier=None),
    request("an API key of a tier that is allowed", [("X-API-Key", DEAR_KEY)], ("key:dear", "pro"), "pro"),
    request("an API key of a tier that is not allowed", [("X-API-Key", API_KEY)], FORBIDDEN, "pro"),
    request("nobody where tiers are asked for", [], NOBODY, "pro"),
    request("nobody on an optional route with tiers", [], NOBODY, "pro-optional"),
    good("another tier on an optional route with tiers", FORBIDDEN, route="pro-optional", tier="free"),
    good("that tier on an optional route with tiers", route="pro-optional"),
    good("that tier where nobody may come too", route="pro-or-nobody"),
    good("another tier where nobody may come too", FORBIDDEN, route="pro-or-nobody", tier="free"),
    request("nobody where nobody may come", [], ("", "anonymous"), "pro-or-nobody"),
    good("scopes as text", route="scoped", scope="write read"),
    good("scopes as a list", route="scoped", scope=["read", "write", "more"]),
    good("a scope is missing", FORBIDDEN, route="scoped", scope="read"),
    good("no scopes", FORBIDDEN, route="scoped"),
    good("scopes that only look alike", FORBIDDEN, route="scoped", scope="reader write"),
    request("nobody where a scope is asked for", [], NOBODY, "scoped-optional"),
    good("no scope on an optional route", FORBIDDEN, route="scoped-optional"),
    request("an API key has no scope", [("X-API-Key", DEAR_KEY)], FORBIDDEN, "scoped"),
    good("the claims", route="claimed", plan="gold", level=3, verified=True),
    good("a list with the claim", route="claimed", plan=["silver", "gold"], level=3, verified=True),
    good("a claim is missing", FORBIDDEN, route="claimed", plan="gold", level=3),
    good("a claim of another type", FORBIDDEN, route="claimed", plan="gold", level=3, verified=1),
    good("a claim of another value", FORBIDDEN, route="claimed", plan="silver", level=3, verified=True),
    request("an API key where only they are taken", [("X-API-Key", API_KEY)], ("key:partner", "free"), "keys-only"),
    with_token("a token where only API keys are taken", scheme, BAD, "keys-only"),
    request("nobody where nobody is asked", [], ("", "anonymous"), "open"),
    Case("a token where nobody is asked", lambda: (scheme(compact(JWT, claims())), ("", "anonymous")), "open"),
    request("a bad token where nobody is asked", [("Authorization", "Bearer x")], ("", "anonymous"), "open"),
]


def of(name: str, provider: str, seen: str, signer: Signer | None = None, route: str = "", **more: Any) -> Case:
    """A token of one of several providers: `seen` is a tier, or how it is refused."""

    def makes() -> tuple[Headers, Caller | str]:
        body = claims(**({"iss": ISSUER[provider]} | _called(more)))
        who = body.get("uid", body.get("sub", "")) if provider == "lenient" else body["sub"]
        token = signer.sign(body) if signer else compact(JWT, body)
        return scheme(token), seen if seen in (BAD, FORBIDDEN) else ("", "anonymous") if seen == NOBODY else (who, seen)

    return Case(name, makes, route)


NEW, OLD = Signer("HS512", "n", NEW_SECRET), Signer("HS512", "o", OLD_SECRET)
LENIENT: dict[str, Any] = {"uid": "u-1", "aud": "gateway", "plan": "free"}


class Forger(Signer):
    """Signs with fields of its own in the header."""

    def __init__(self, signer: Signer, header: Mapping[str, Any]) -> None:
        super().__init__(signer.algorithm, signer.kid, signer._key)
        self._header = header

    def sign(self, claims: Mapping[str, Any] | bytes, **header: Any) -> str:
        return super().sign(claims, **header, **self._header)


FORGED = Signer("ES256", None, ec.generate_private_key(ec.SECP256R1()))


def _kid(signer: Signer, kid: str | None) -> Signer:
    return Signer(signer.algorithm, kid, signer._key)


PROVIDERS = [
    *(
        of(f"{name} verifies", name, "pro", signer)
        for name, signer in (
            ("platform", None),
            ("idp", RSA),
            ("idp", PSS),
            ("pem", PEM),
            ("curves", P384),
            ("curves", P521),
            ("edge", EDGE),
        )
    ),
    *(
        of(f"a token of {name} signed by {other.algorithm}", name, BAD, other)
        for name, other in (("idp", PEM), ("pem", P384), ("edge", RSA), ("platform", RSA), ("pem", STRICT))
    ),
    of("another issuer's", "platform", BAD, iss="https://who.test/"),
    of("an issuer without its slash", "platform", BAD, iss=ISSUER["platform"].rstrip("/")),
    of("no issuer", "platform", BAD, iss=None),
    of("an issuer twice", "platform", BAD, iss=[ISSUER["platform"]]),
    of("a key that is for encryption", "idp", BAD, _kid(RSA, "enc")),
    of("a kid that nobody knows", "idp", BAD, _kid(RSA, "r2")),
    of("no kid", "idp", "pro", _kid(RSA, None)),
    of("a kid for a key without one", "pem", "pro", _kid(PEM, "any")),
    of("the other curve's kid", "curves", BAD, _kid(P384, "p521")),
    # confusion: a public key is no secret
    *(
        of(f"a public key as a secret, {name}", "idp", BAD, Signer("HS256", kid, key))
        for name, kid, key in (
            ("PEM", "r1", RSA.pem),
            ("PEM stripped", "r1", RSA.pem.strip()),
            ("PEM without kid", None, RSA.pem),
            ("JWK", "r1", json.dumps(RSA.jwk)),
        )
    ),
    # a key that comes with the token
    *(
        of(f"the forger's key as {name}", provider, BAD, Forger(FORGED, {name: value}))
        for provider in ("pem", "strict")
        for name, value in (
            ("jwk", FORGED.jwk),
            ("jku", "https://forger.test/keys"),
            ("x5u", "https://forger.test/certificate"),
            ("x5c", ["AAAA"]),
        )
    ),
    of("another key as jwk, which is ignored", "pem", "pro", Forger(PEM, {"jwk": FORGED.jwk, "jku": "https://f.test"})),
    of("the platform's secret for another issuer", "idp", BAD, Signer("HS256", None, SECRET)),
    # rotation of secrets, claims of other names, leeway, audiences
    of("the new secret", "lenient", "free", NEW, **LENIENT),
    of("the old secret", "lenient", "free", OLD, **LENIENT),
    of("no kid, the old secret", "lenient", "free", _kid(OLD, None), **LENIENT),
    of("the new one's kid, the old secret", "lenient", BAD, _kid(OLD, "n"), **LENIENT),
    of("HS256 where HS512 is pinned", "lenient", BAD, Signer("HS256", "n", NEW_SECRET), **LENIENT),
    of("exp within the leeway", "lenient", "free", NEW, exp=later(-2), **LENIENT),
    of("exp at the leeway", "lenient", BAD, NEW, exp=later(-5), **LENIENT),
    of("nbf within the leeway", "lenient", "free", NEW, nbf=later(4), **LENIENT),
    of("nbf beyond the leeway", "lenient", BAD, NEW, nbf=later(8), **LENIENT),
    of("a default tier of its own", "lenient", "pro", NEW, **LENIENT | {"plan": None, "tier": "free"}),
    of("the usual subject claim where another is named", "lenient", BAD, NEW, **LENIENT | {"uid": None}),
    *(
        of(f"aud {json.dumps(aud)}", "lenient", seen, NEW, **LENIENT | {"aud": aud})
        for aud, seen in (
            (None, BAD),
            ("gateway", "free"),
            ("https://mobile.test", "free"),
            (["x", "gateway"], "free"),
            (["x"], BAD),
            ([], BAD),
            ("", BAD),
            ("x", BAD),
            ("Gateway", BAD),
            ("gateway ", BAD),
            (5, BAD),
            (["gateway", 5], BAD),
            ({"gateway": 1}, BAD),
            # Envoy's own reader would take these
            ("https://gateway", BAD),
            ("http://gateway/", BAD),
            ("gateway/", BAD),
            ("mobile.test", BAD),
        )
    ),
    # per route
    of("the route's provider", "idp", "pro", RSA, "idp-only"),
    of("a provider that is not the route's", "platform", BAD, None, "idp-only"),
    of("a provider that is not the optional route's", "platform", NOBODY, None, "idp-optional"),
    request("an API key where a provider is asked for", [("X-API-Key", API_KEY)], BAD, "idp-only"),
    # a provider that refuses bad tokens
    of("strict verifies", "strict", "pro", STRICT, "required"),
    of("a good token of the strict one", "strict", "pro", STRICT, "strict-optional"),
    of("an expired token of the strict one", "strict", BAD, STRICT, "strict-optional", exp=later(-1)),
    of("an expired token of another", "platform", NOBODY, None, "strict-optional", exp=later(-1)),
    request("a token that could be the strict one's", [("Authorization", "Bearer x")], BAD, "strict-optional"),
    request("nobody, by the strict one", [], ("", "anonymous"), "strict-optional"),
    # revocation
    of("a revoked token", "platform", BAD, jti=STOLEN),
    of("a revoked token of another provider", "idp", BAD, RSA, jti=STOLEN),
    of("a token with another id", "platform", "pro", jti=STOLEN + "x"),
    of("a revoked subject", "platform", BAD, sub="mallory", iat=REVOKED_BEFORE - 1),
    of("a revoked subject that does not say when", "platform", BAD, sub="mallory", iat=None),
    of("a revoked subject's later token", "platform", "pro", sub="mallory", iat=REVOKED_BEFORE),
    of("the same subject of another provider", "idp", "pro", RSA, sub="mallory", iat=REVOKED_BEFORE - 1),
]
