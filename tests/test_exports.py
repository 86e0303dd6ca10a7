"""What `import antiphon` promises, and what it costs."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from importlib.resources import files

import pytest

import antiphon

HEAVY = {"aiohttp", "litestar", "nicegui", "redis", "rich", "sqlalchemy", "typer", "uvicorn"}

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(antiphon.__path__, "antiphon.")
    if module.name != "antiphon.__main__"
)


def test_the_names_are_sorted_and_none_stands_there_twice() -> None:
    assert antiphon.__all__ == sorted(set(antiphon.__all__))


@pytest.mark.parametrize("name", antiphon.__all__)
def test_every_name_can_be_imported(name: str) -> None:
    assert getattr(antiphon, name) is not None


def test_a_star_import_gives_these_names_and_no_others() -> None:
    namespace: dict[str, object] = {}
    exec("from antiphon import *", namespace)
    assert sorted(namespace.keys() - {"__builtins__"}) == antiphon.__all__


@pytest.mark.parametrize("module", MODULES)
def test_no_module_promises_a_name_that_it_has_not(module: str) -> None:
    found = importlib.import_module(module)
    names = getattr(found, "__all__", [])
    assert len(names) == len(set(names))
    assert [name for name in names if not hasattr(found, name)] == []


def test_the_package_says_that_it_is_typed() -> None:
    assert files("antiphon").joinpath("py.typed").is_file()


def test_importing_antiphon_loads_neither_server_nor_http_client_nor_command_line() -> None:
    program = "import sys, antiphon; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    loaded = {module.partition(".")[0] for module in done.stdout.split()}
    assert loaded & HEAVY == set()
