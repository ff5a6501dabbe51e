"""The locks of the images, held against what the project and its libraries say they need."""

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from supply.pins import normalised, read_pins

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
TORCH: list[str] = PROJECT["tool"]["uv"]["dependency-metadata"][0]["requires-dist"]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
ASKED = {
    "build": ["hatchling", "cyclonedx-bom"],
    "pyarrow": ["pyarrow"],
    "service": [*PROJECT["project"]["dependencies"], *EXTRAS["service"]],
    "training": [*PROJECT["project"]["dependencies"], *EXTRAS["training"]],
}
# An image has any processor and any Python that the project allows.
SURROUNDINGS = [(machine, version) for machine in ("x86_64", "aarch64") for version in ("3.11", "3.12", "3.13")]


def needed(asked: Iterable[str], machine: str, version: str) -> list[Requirement]:
    """All that an install of these asks for, as the libraries that are installed here say it of each other."""
    linux = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": machine}
    surrounding = linux | {"python_version": version, "python_full_version": f"{version}.0"}
    found: list[Requirement] = []
    waiting = [(text, "") for text in asked]
    seen = set(waiting)
    for text, extra in waiting:  # which grows meanwhile
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate(surrounding | {"extra": extra}):
            continue
        found.append(requirement)
        more = [(theirs, of) for theirs in asked_by(requirement) for of in ("", *requirement.extras)]
        waiting += [each for each in more if each not in seen]
        seen.update(more)
    return [requirement for requirement in found if requirement.name not in ("nelbo", "torch")]


def asked_by(requirement: Requirement) -> list[str]:
    if requirement.name == "nelbo":
        return [text for extra in requirement.extras for text in EXTRAS[extra]]
    # As the CPU build says of itself, whichever build is installed here.
    return TORCH if requirement.name == "torch" else requires(requirement.name) or []


@pytest.mark.parametrize(("machine", "version"), SURROUNDINGS)
@pytest.mark.parametrize("name", ASKED)
def test_a_lock_has_all_that_its_image_needs_and_nothing_else(name: str, machine: str, version: str) -> None:
    pins = read_pins(ROOT / "requirements" / f"{name}.txt")
    requirements = needed(ASKED[name], machine, version)
    wrong = [
        f"{requirement}, the lock has {pins.get(normalised(requirement.name))}: run `make lock`"
        for requirement in requirements
        if normalised(requirement.name) not in pins
        or not requirement.specifier.contains(pins[normalised(requirement.name)].version, prereleases=True)
    ]
    assert wrong == []
    # What only an older Python needs is in the lock too, for that one.
    assert set(pins) >= {normalised(requirement.name) for requirement in requirements}
    if version == "3.11":
        assert set(pins) == {normalised(requirement.name) for requirement in requirements}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_has_the_versions_that_everything_is_tested_with(lock: Path) -> None:
    constraints = read_pins(ROOT / "constraints.txt")
    differing = {
        name: f"{pin.version} in {lock.name}, {constraints[name].version if name in constraints else 'nothing'} in "
        "constraints.txt; run `make lock`, and name what is new in constraints.txt"
        for name, pin in read_pins(lock).items()
        if name not in constraints or constraints[name].version != pin.version
    }
    assert differing == {}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_holds_names_versions_and_digests_and_no_place(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert "://" not in text
    assert "--index-url" not in text
    assert [pin for pin in read_pins(lock).values() if not pin.digests] == []


def test_each_lock_is_one_of_these() -> None:
    assert {lock.stem for lock in LOCKS} == set(ASKED)


def test_the_makefile_locks_what_is_checked_here() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert set(re.findall(r"-o requirements/(\w+)\.txt", makefile)) == set(ASKED)
    assert f"echo {' '.join(ASKED['build'])} |" in makefile
