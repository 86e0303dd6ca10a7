"""The lock files: all that is needed stands in them, and nothing of the machine that wrote them."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "requirements"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
LOCKS = sorted(REQUIREMENTS.glob("*.lock"))
NPM_LOCK = ROOT / "tests" / "js" / "package-lock.json"


def wanted(*extras: str, groups: tuple[str, ...] = ()) -> list[Requirement]:
    """What the project, some extras (all by default) and groups ask for; not itself."""
    lines = list(PROJECT["project"]["dependencies"])
    for extra in extras or EXTRAS:
        lines += EXTRAS[extra]
    for group in groups:
        lines += PROJECT["dependency-groups"][group]
    found = [Requirement(line) for line in lines]
    return [requirement for requirement in found if requirement.name != "antiphon"]


def locked(path: Path) -> dict[str, str]:
    """Names and versions in a lock file; each line must be a pin with its hashes."""
    pins: dict[str, str] = {}
    text = "".join(
        line for line in path.read_text("utf-8").splitlines(keepends=True) if line[:1] != "#"
    )
    for entry in text.replace("\\\n", " ").splitlines():
        pin, *hashes = entry.split(" --hash=")
        assert hashes, f"{pin} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*", text) for text in hashes), pin
        requirement = Requirement(pin)
        (version,) = requirement.specifier
        assert version.operator == "==", pin
        pins[canonicalize_name(requirement.name)] = version.version
    return pins


def missing(needed: list[Requirement], pins: dict[str, str]) -> list[str]:
    """What is not in a lock, or in a version that the project does not want."""
    return [
        str(requirement)
        for requirement in needed
        if not requirement.specifier.contains(pins.get(canonicalize_name(requirement.name), "0"))
        or canonicalize_name(requirement.name) not in pins
    ]


def test_every_dependency_of_every_extra_and_group_is_locked_for_development() -> None:
    groups = tuple(PROJECT["dependency-groups"])
    assert missing(wanted(groups=groups), locked(REQUIREMENTS / "dev.lock")) == []


def test_every_dependency_of_the_demo_is_locked_for_it() -> None:
    needed = wanted("cli", "server", "backend")
    assert missing(needed, locked(REQUIREMENTS / "demo.lock")) == []


def test_the_demo_gets_no_more_than_it_needs_in_the_versions_of_development() -> None:
    demo, development = locked(REQUIREMENTS / "demo.lock"), locked(REQUIREMENTS / "dev.lock")
    assert {name: development.get(name) for name in demo} == demo
    assert demo.keys().isdisjoint({"pytest", "mypy", "ruff", "redis", "playwright"})


def test_every_tool_is_locked_and_the_build_needs_no_other() -> None:
    lines = (REQUIREMENTS / "tools.in").read_text("utf-8").splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    lines += PROJECT["build-system"]["requires"]
    assert missing(list(map(Requirement, lines)), locked(REQUIREMENTS / "tools.lock")) == []


def test_the_extra_all_is_all_extras() -> None:
    (everything,) = map(Requirement, EXTRAS["all"])
    assert everything.extras == EXTRAS.keys() - {"all"}


@pytest.mark.parametrize("path", sorted(REQUIREMENTS.iterdir()), ids=lambda path: path.name)
def test_no_index_and_no_path_of_a_machine_stands_in_the_requirements(path: Path) -> None:
    text = path.read_text("utf-8")
    assert re.findall(r"--\S*index\S*|--find-links|--trusted-host", text) == []
    assert re.findall(r"[a-z+]+://\S*|\bfile:\S*", text) == []
    assert re.findall(r"(?<![\w.])(?:/|~/|[A-Za-z]:\\)\w\S*", text) == []


def test_no_registry_and_no_path_of_a_machine_stands_in_the_npm_lock() -> None:
    packages: dict[str, dict[str, Any]] = json.loads(NPM_LOCK.read_text("utf-8"))["packages"]
    assert [name for name, package in packages.items() if "resolved" in package] == []
    assert [name for name in packages if name and not name.startswith("node_modules/")] == []
    # What is left are links with which packages ask for money.
    for package in packages.values():
        package.pop("funding", None)
    text = json.dumps(packages)
    assert re.findall(r"[a-z+]+://[^\"]*|\bfile:[^\"]*|\"(?:/|~/)[^\"]*", text) == []


def test_the_npm_lock_pins_what_the_package_asks_for_with_hashes() -> None:
    asked = json.loads((NPM_LOCK.parent / "package.json").read_text("utf-8"))["devDependencies"]
    packages = json.loads(NPM_LOCK.read_text("utf-8"))["packages"]
    assert {name: packages[f"node_modules/{name}"]["version"] for name in asked} == asked
    assert [name for name, package in packages.items() if name and "integrity" not in package] == []
