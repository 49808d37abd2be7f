"""What is declared, what is packaged, and what an editable installation makes of a clone."""

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bdclean import __version__
from tests.conftest import CONFIGS

ROOT = CONFIGS.parent
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
NAMES = {"PIL": "pillow", "yaml": "pyyaml"}
"""Distributions that are not called as the module that is imported from them."""


def declared() -> set[str]:
    """Names of the distributions in setup.cfg, extras included."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = "\n".join([setup["options"]["install_requires"], *setup["options.extras_require"].values()]).splitlines()
    return {match[0].lower() for line in lines if (match := re.match(r"[\w-]+", line))}


def imported() -> set[str]:
    """Top-level modules that the package imports and that are not Python's own."""
    found = set()
    for path in (ROOT / "bdclean").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"bdclean"}


def test_every_import_is_declared() -> None:
    missing = {NAMES.get(name, name).lower().replace("_", "-") for name in imported()} - declared()
    assert not missing


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of what is packaged, in a folder of the package's name."""
    place = tmp_path / "elsewhere" / "bdclean"
    shutil.copytree(ROOT / "bdclean", place / "bdclean", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    return place


def build(clone: Path, kind: str) -> zipfile.ZipFile:
    wheels = clone.parent / kind
    subprocess.run([sys.executable, "-c", BUILD, kind, str(wheels)], cwd=clone, check=True, capture_output=True)
    return zipfile.ZipFile(next(wheels.glob("*.whl")))


def test_an_editable_installation_is_found_in_the_folder_that_contains_the_clone(clone: Path) -> None:
    site = clone.parent.parent / "site"
    with build(clone, "build_editable") as wheel:
        wheel.extractall(site)
    # Without the packages of this environment: bdclean may be installed among them.
    start = [sys.executable, "-S", "-c", f"import site; site.addsitedir({str(site)!r}); import runpy, sys"]
    for code in (
        "import bdclean; print(bdclean.__version__)",
        "sys.argv = ['', '--version']; runpy.run_module('bdclean', run_name='__main__')",
    ):
        command = [*start[:-1], f"{start[-1]}; {code}"]
        done = subprocess.run(command, cwd=clone.parent, env={}, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == __version__, done.stderr


def test_the_docker_image_copies_what_there_is_and_installs_what_is_declared() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for word in copied:
        assert (ROOT / word).exists()
        assert f"!{word}" in ignored
    assert {"pyproject.toml", "setup.cfg", "README.md", "LICENSE", "bdclean"} <= set(copied)
    (extras,) = re.findall(r'"/src\[([\w,]+)\]"', "\n".join(lines))
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert set(extras.split(",")) <= set(setup["options.extras_require"])
    assert lines[-1] == 'ENTRYPOINT ["bdclean"]'


def docker_context(place: Path) -> Path:
    """A copy of the files that .dockerignore lets through."""
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        source = ROOT / line.removeprefix("!")
        if not line.startswith("!"):
            continue
        if source.is_dir():
            shutil.copytree(source, place / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, place)
    return place


def test_the_steps_of_the_dockerfile_end_in_a_program_that_runs(tmp_path: Path) -> None:
    """Follows COPY and the installation of the package in a folder; the other packages are there already."""
    context, image = docker_context(tmp_path / "context"), tmp_path / "image"
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        words = line.split()
        if not line.startswith("COPY "):
            continue
        target = image / words[-1].lstrip("/")
        for name in words[1:-1]:
            if (context / name).is_dir():
                shutil.copytree(context / name, target)
            else:
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(context / name, target)
    with build(image / "src", "build_wheel") as wheel:
        wheel.extractall(tmp_path / "site")
    shutil.rmtree(image / "src")
    config = image / "opt" / "bdclean" / "configs" / "badnet.yaml"
    command = [sys.executable, "-m", "bdclean", "fit", "--config", str(config), "--print_config"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "arch: small_cnn" in done.stdout, done.stderr


def test_a_wheel_holds_all_that_is_no_python_too(clone: Path) -> None:
    with build(clone, "build_wheel") as wheel:
        packaged = set(wheel.namelist())
    source = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "bdclean").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "bdclean/py.typed" in source
    assert source <= packaged
