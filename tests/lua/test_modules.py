"""Every file in translate/lua: what it needs and gives, and that it uses nothing else."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from importlib import resources

import pytest
from lupa.luajit21 import LuaRuntime

from controlplane.translate import headers, lua_filter
from tests.support.configs import ROOT
from tests.support.lua_names import code, declared, names

FOLDER = resources.files("controlplane.translate").joinpath("lua")
MODULES = sorted(file.name.removesuffix(".lua") for file in FOLDER.iterdir())
ROOTS = {"request_filter", "verify"}
GLOBALS = {
    *("string", "table", "math", "os", "tostring", "tonumber", "type", "pairs", "ipairs", "collectgarbage"),
    "EnvoyTimestampResolution",
}
"""What a script may use beside its arguments."""


@pytest.mark.parametrize("module", MODULES)
def test_it_compiles(module: str) -> None:
    """In LuaJIT, where a file alone is a chunk."""
    LuaRuntime().compile(lua_filter.source(module))


@pytest.mark.parametrize("module", MODULES)
def test_no_global_but_the_known_ones(module: str) -> None:
    """A misspelt name would be nil, and found out by a request."""
    assert set(names(lua_filter.source(module))) - declared(lua_filter.source(module)) <= GLOBALS


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_declared_in_vain(module: str) -> None:
    """Each local name is used."""
    text = lua_filter.source(module)
    found = names(text)

    assert {name for name in declared(text) if found[name] == 1 and name != "_"} == set()


@pytest.mark.parametrize("module", MODULES)
def test_its_head_says_what_it_needs_and_gives(module: str) -> None:
    """In the comment that the file begins with; every function that it returns is named there."""
    text = lua_filter.source(module)
    head = text[: text.index("\n\n")]
    given = re.findall(r"(\w+) = ", text.rpartition("\nreturn {")[2])

    assert re.search(r"^-- Needs: ", head, re.MULTILINE)
    assert given
    assert set(given) <= set(re.findall(r"\w+", head.partition("-- Gives: ")[2]))


@pytest.mark.parametrize("module", MODULES)
def test_what_it_needs_is_there(module: str) -> None:
    """Names, configuration, or a module of this folder."""
    assert set(lua_filter.needs(module)) <= {"names", "config", *MODULES}


def test_every_module_is_needed() -> None:
    """By one of the two scripts that Envoy gets."""
    assert {need for module in MODULES for need in lua_filter.needs(module)} | ROOTS >= set(MODULES)


def test_what_a_script_reads_of_a_route_is_what_it_is_told() -> None:
    """A setting that is renamed on one side only fails here."""
    read = {name for module in MODULES for name in re.findall(r"\bsettings\.(\w+)", code(lua_filter.source(module)))}

    assert read == set(headers.Setting)


@pytest.mark.parametrize("module", MODULES)
def test_what_a_script_reads_of_the_configuration_is_what_it_is_told(module: str) -> None:
    """Each is in the head, too."""
    head = lua_filter.source(module).partition("\n\n")[0]
    read = set(re.findall(r"\bconfig\.(\w+)", code(lua_filter.source(module))))

    assert read <= set(re.findall(r"\w+", head))


def locals_of(text: str) -> Iterator[int]:
    """How many local names a chunk's outermost block has."""
    for line in text.splitlines():
        if line.startswith("local function"):
            yield 1
        elif line.startswith("local "):
            yield len(line.removeprefix("local ").partition("=")[0].split(","))


@pytest.mark.parametrize("module", MODULES)
def test_there_is_room_for_local_names(module: str) -> None:
    """Lua 5.1 allows a function 200 local names and 60 of the functions around it."""
    assert sum(locals_of(code(lua_filter.source(module)))) < 60


@pytest.mark.luacheck
def test_luacheck_finds_nothing() -> None:
    """Unused and shadowed names, unknown globals, dead code."""
    done = subprocess.run(
        ["luacheck", "--no-color", str(FOLDER)], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout
