"""envoyproxy/ratelimit's policies: what a file may say, and which limit a request meets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_service.errors import PolicyRejected
from ratelimit_service.rls_policy import Node, RlsPolicy, Wildcard, is_rls, load, read_texts
from ratelimit_service.windows import Unit
from tests.support.yaml_texts import ALIAS_BOMB, alias_chain

BAD = sorted((Path(__file__).parent / "bad_policies").glob("*.yaml"))

SHOP = """
domain: shop
descriptors:
  - key: database
    value: users
    rate_limit: {unit: second, requests_per_unit: 500}
  - key: database
    value: default
    rate_limit: {unit: second, requests_per_unit: 600}
  - key: to_number
    rate_limit: {unit: day, requests_per_unit: 7}
  - key: to_number
    value: "2061111111"
    rate_limit: {unlimited: true}
  - key: remote_address
    rate_limit: {unit: SECOND, requests_per_unit: 11}
  - key: remote_address
    value: 50.0.0.5
    rate_limit: {unit: second, requests_per_unit: 0}
  - key: message_type
    value: marketing
    descriptors:
      - key: to_number
        rate_limit: {unit: week, requests_per_unit: 5, name: to_one}
      - key: to_number
        value: "12*"
        rate_limit: {unit: hour, requests_per_unit: 12}
        descriptors:
          - key: hour
            rate_limit: {unit: month, requests_per_unit: 99}
      - key: to_number
        value: "12345*"
        rate_limit: {unit: hour, requests_per_unit: 12345}
      - key: to_number
        value: "12345"
        rate_limit: {unit: year, requests_per_unit: 1}
  - key: message_type
    rate_limit: {unit: minute, requests_per_unit: 8}
    shadow_mode: true
    detailed_metric: true
  - key: code
    value: 404
    rate_limit: {unit: minute, requests_per_unit: 4}
  - key: plain
"""


@pytest.fixture(scope="module")
def shop() -> RlsPolicy:
    return read_texts({"shop.yaml": SHOP})


CASES = [
    ("database=users", (Unit.SECOND, 500)),
    ("database=default", (Unit.SECOND, 600)),
    ("database=other", None),  # neither value nor key alone
    ("database", None),
    ("to_number=5551234567", (Unit.DAY, 7)),  # a key alone holds for each value
    ("to_number", (Unit.DAY, 7)),  # and for none
    ("to_number=2061111111", (None, 0)),  # unlimited
    ("remote_address=10.0.0.1", (Unit.SECOND, 11)),
    ("remote_address=50.0.0.5", (Unit.SECOND, 0)),  # the value comes before the key alone
    ("message_type=marketing", None),  # a level without a limit of its own
    ("message_type=marketing to_number=55", (Unit.WEEK, 5)),
    ("message_type=marketing to_number=12345", (Unit.YEAR, 1)),  # the value before any wildcard
    ("message_type=marketing to_number=123456", (Unit.HOUR, 12)),  # of wildcards the first in the file
    ("message_type=marketing to_number=12", (Unit.HOUR, 12)),  # a wildcard may stand for nothing
    ("message_type=marketing to_number=127 hour=3", (Unit.MONTH, 99)),
    ("message_type=marketing to_number=55 hour=3", None),  # nothing is tried again after a match
    ("message_type=marketing to_number=55 more=1", None),  # deeper than the file
    ("message_type=other", (Unit.MINUTE, 8)),
    ("message_type=other to_number=55", None),
    ("to_number=55 message_type=marketing", None),  # the order counts
    ("code=404", (Unit.MINUTE, 4)),  # a value is text, however it looks
    ("plain=x", None),
    ("unknown=x", None),
    ("", None),
]


def entries(text: str) -> list[tuple[str, str]]:
    return [(key, value) for key, _, value in (word.partition("=") for word in text.split())]


@pytest.mark.parametrize(("asked", "expected"), CASES)
def test_the_most_specific_limit_of_each_level_holds(
    shop: RlsPolicy, asked: str, expected: tuple[Unit | None, int] | None
) -> None:
    """Key and value, then wildcard, then key alone, and only at the full depth."""
    limit, _ = shop.find("shop", entries(asked))

    assert (limit and (limit.unit, limit.requests)) == expected


STARS = """
domain: stars
descriptors:
  - {key: mid, value: "bar*b", rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: multi, value: "foo*bar*baz", rate_limit: {unit: minute, requests_per_unit: 2}}
  - {key: path, value: "/api/*/resource/*/action", rate_limit: {unit: minute, requests_per_unit: 3}}
  - {key: path, value: "/api/*", rate_limit: {unit: minute, requests_per_unit: 4}}
  - {key: path, rate_limit: {unit: minute, requests_per_unit: 5}}
  - {key: first, value: "*.png", rate_limit: {unit: minute, requests_per_unit: 6}}
  - {key: any, value: "*", rate_limit: {unit: minute, requests_per_unit: 7}}
  - {key: twice, value: "a**a", rate_limit: {unit: minute, requests_per_unit: 8}}
  - {key: "x-*", rate_limit: {unit: minute, requests_per_unit: 9}}
  - {key: whole_name, rate_limit: {unit: minute, requests_per_unit: 10}}
  - key: files
    value: "top/*"
    share_threshold: true
    descriptors:
      - {key: files, value: "in*side", share_threshold: true, rate_limit: {unit: minute, requests_per_unit: 11}}
      - {key: kind, rate_limit: {unit: minute, requests_per_unit: 12}}
      - {key: own, value: "o*", rate_limit: {unit: minute, requests_per_unit: 13}}
      - {key: files, value: inside, rate_limit: {unit: minute, requests_per_unit: 14}}
"""


@pytest.mark.parametrize(
    ("asked", "requests", "counted"),
    [
        ("mid=bar1b", 1, None),
        ("mid=barb", 1, None),  # a star may be nothing
        ("mid=bar1c", None, None),
        ("mid=xbarb", None, None),
        ("mid=ba", None, None),
        ("multi=foo1bar2baz", 2, None),
        ("multi=foobarbaz", 2, None),
        ("multi=foobarbarbazbaz", 2, None),
        ("multi=foobaz", None, None),
        ("multi=foobazbar", None, None),
        ("multi=foobarba", None, None),
        ("multi=foobarbaz2", None, None),
        ("path=/api/v1/resource/7/action", 3, None),
        ("path=/api/v1/resource/action", 4, None),  # the two slashes are not one
        ("path=/api/", 4, None),
        ("path=/other", 5, None),
        ("path=/api/*", 4, None),  # the wildcard's own text is a value like any other
        ("first=.png", 6, None),
        ("first=a.jpg", None, None),
        ("any", 7, None),  # no value is an empty one
        ("any=thing", 7, None),
        ("twice=aa", 8, None),
        ("twice=a", None, None),  # the two ends do not overlap
        ("x-agent=y", 9, None),  # a star in a key
        ("whole=name", 10, None),  # `key_value` is one text
        ("files=top/a files=in1side", 11, "files=top/* files=in*side"),
        ("files=top/a kind=x", 12, "files=top/* kind=x"),  # shared above, each value its own below
        ("files=top/a own=o1", 13, "files=top/* own=o1"),  # a wildcard that is not shared
        ("files=top/a files=inside", 14, "files=top/* files=inside"),  # word for word is no wildcard
        ("files=top/a", None, "files=top/*"),
    ],
)
def test_wildcards(asked: str, requests: int | None, counted: str | None) -> None:
    """A star is any text wherever it stands; with share_threshold what it fits is one counter."""
    limit, under = read_texts({"stars.yaml": STARS}).find("stars", entries(asked))

    assert (limit and limit.requests) == requests
    assert list(under) == entries(counted or asked)


WORDS = st.text("ab", max_size=6)


@given(st.lists(WORDS, min_size=2, max_size=4), WORDS)
def test_a_star_is_any_text(parts: list[str], value: str) -> None:
    """The same as a regular expression would find."""
    expected = re.fullmatch(".*".join(parts), value) is not None

    assert Wildcard("*".join(parts), Node()).fits(value) is expected


def test_what_has_no_effect_on_decisions_is_taken() -> None:
    """Keys that theirs has for its metrics and metadata; what is null is absent."""
    policy = read_texts(
        {
            "a.yaml": "domain: d\ndescriptors:\n"
            "  - {key: a, detailed_metric: true, value_to_metric: yes, metadata: {any: [1, {thing: 2026-01-01}]}}\n"
            "  - {key: b, rate_limit: null, metadata: null, shadow_mode: null, value: null, descriptors: null}\n"
            "  - {key: c, rate_limit: {unlimited: true, requests_per_unit: 3}}\n"
            "  - {key: q, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 3}}\n"
        }
    )
    quota, _ = policy.find("d", [("q", "x")])

    assert list(policy.domains["d"].named) == ["a", "b", "c", "q"]
    assert quota is not None and quota.is_quota


def test_another_domain_has_no_limits(shop: RlsPolicy) -> None:
    """A file speaks for its own domain."""
    assert shop.find("elsewhere", [("database", "users")])[0] is None


def test_a_limit_keeps_its_name_and_flags(shop: RlsPolicy) -> None:
    """The name goes into answers; without one, metrics use the place in the file."""
    named, _ = shop.find("shop", entries("message_type=marketing to_number=55"))
    shadow, _ = shop.find("shop", entries("message_type=other"))

    assert named is not None and (named.name, named.label) == ("to_one", "to_one")
    assert shadow is not None and shadow.is_shadow and (shadow.name, shadow.label) == ("", "message_type")


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_mistake_is_told_with_its_line(path: Path) -> None:
    """Each file has the one mistake that its first line names, and nothing else is said."""
    line, _, problem = path.read_text().partition("\n")[0].removeprefix("# ").partition(": ")

    with pytest.raises(PolicyRejected) as refusal:
        load(path)

    assert str(refusal.value).startswith(f"{path}:{line}: ")
    assert problem in str(refusal.value)
    assert str(refusal.value).count(str(path)) == 1


def test_all_mistakes_are_told_at_once() -> None:
    """Whoever writes policies need not start the service once a mistake."""
    with pytest.raises(PolicyRejected) as refusal:
        read_texts({"a.yaml": "descriptors: 3", "b.yaml": "domain: x\nextra: 1"})

    assert [part.split(": ")[0] for part in str(refusal.value).split("; ")] == ["a.yaml:1", "a.yaml:1", "b.yaml:2"]


def test_a_directory_is_all_its_files(tmp_path: Path) -> None:
    """Files of one domain are one policy; what two of them say is a mistake of the later one."""
    limit = "descriptors: [{key: k, rate_limit: {unit: minute, requests_per_unit: 1}}]"
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(f"domain: {name}\n{limit}")
    (tmp_path / "notes.txt").write_text("no policy")

    assert set(load(tmp_path).domains) == {"one", "two"}

    more = "\n  - {key: more, rate_limit: {unit: day, requests_per_unit: 2}}"
    (tmp_path / "three.yml").write_text(f"domain: one\ndescriptors:{more}")
    merged = load(tmp_path)
    limits = [merged.find("one", [(key, "x")])[0] for key in ("k", "more")]
    assert [limit and limit.requests for limit in limits] == [1, 2]
    assert merged.find("two", [("more", "x")])[0] is None

    (tmp_path / "zero.yml").write_text("domain: one\ndescriptors: [{key: k}]")
    with pytest.raises(PolicyRejected, match=r"zero\.yml:2: descriptor 'k' is there twice"):
        load(tmp_path)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """An empty directory and a missing file say so."""
    with pytest.raises(PolicyRejected, match="no YAML file"):
        load(tmp_path)
    with pytest.raises(PolicyRejected, match="cannot be read"):
        load(tmp_path / "gone.yaml")


def test_yaml_and_directories_are_this_form(tmp_path: Path) -> None:
    """Our own policy form is JSON; everything else tells itself apart by its name."""
    assert is_rls(tmp_path) and is_rls(Path("a.yaml")) and is_rls(Path("a.yml"))
    assert not is_rls(Path("a.json"))


HOSTILE = {
    "nested": "[" * 100_000,
    "alias of itself": "domain: x\ndescriptors: &a [{key: k, descriptors: *a}]\n",
    "alias bomb": ALIAS_BOMB,
    "chain of aliases": alias_chain(5000),
    "a date that is none": "domain: x\ndescriptors: [{key: k, shadow_mode: 2026-99-99}]\n",
    "a long number": "domain: x\ndescriptors: [{key: k, shadow_mode: 1" + ":59" * 100_000 + "}]\n",
    "no number": "domain: x\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: !!int ''}}]\n",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_text_that_would_end_or_hold_up_the_process_is_rejected(text: str) -> None:
    """Depth, values and aliases have bounds before anything recurses; a value that YAML cannot read is a mistake."""
    with pytest.raises(PolicyRejected, match=r"policy.yaml:\d+: "):
        read_texts({"policy.yaml": text})
