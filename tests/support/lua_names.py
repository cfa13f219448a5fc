"""The names in a Lua text, found without running it."""

from __future__ import annotations

import re
from collections import Counter

from controlplane.translate import lua_literal

IGNORED = re.compile(r"""--[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'""")
TOKEN = re.compile(r"[A-Za-z_]\w*|[{}()]|[.:]+|==|\S")
DECLARED = re.compile(
    r"\blocal (?!function)([\w,\s]+?)(?= =|$)|\bfunction (\w+)|\bfunction ?\w*\(([\w, ]*)\)|\bfor ([\w, ]+) (?:in|=)"
)


def code(text: str) -> str:
    """The text without comments and strings."""
    return IGNORED.sub('""', text)


def names(text: str) -> Counter[str]:
    """The names that stand for a variable: no field, no method, no name of an entry in a table."""
    tokens = ["", *TOKEN.findall(code(text)), ""]
    found: Counter[str] = Counter()
    brackets = []
    for before, token, after in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if token in "{(":
            brackets.append(token)
        elif token in "})":
            brackets.pop()
        is_entry = brackets[-1:] == ["{"] and before in ("{", ",") and after == "="
        if (
            re.match(r"[A-Za-z_]", token)
            and token not in lua_literal.KEYWORDS
            and before not in (".", ":")
            and not is_entry
        ):
            found[token] += 1
    return found


def declared(text: str) -> set[str]:
    """The local names and the parameters."""
    lists = [group for found in DECLARED.findall(code(text)) for group in found]
    lists += re.findall(r"\bfunction \w+\(([\w, ]*)\)", code(text))
    return {name for each in lists for name in re.findall(r"\w+", each)}
