"""The engines of benchmarks: one contract for all, and clusters on this machine."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bdclean.benchmark.engines import Engine, Local, Ray, Slurm
from bdclean.benchmark.engines.slurm import _batches
from bdclean.cli.main import main
from bdclean.errors import InputError
from tests.trivial import task

ROOT = Path(__file__).parents[1]
FAKE = Path(__file__).with_name("fake_slurm.py")
COMMANDS = ("sbatch", "srun", "sacct", "scontrol", "scancel")


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of engines import this package and these tests from here."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine with commands of SLURM; the folder of their notes."""
    commands, notes = tmp_path / "commands", tmp_path / "slurm"
    commands.mkdir()
    notes.mkdir()
    for name in COMMANDS:
        path = commands / name
        path.write_text(f"#!{sys.executable} -S\n{FAKE.read_text()}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(notes))
    yield notes


@pytest.fixture
def ray_of_this_machine() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init("local", num_cpus=2, include_dashboard=False, configure_logging=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(params=["local", "ray", "slurm", "slurm through local processes"])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "local":
        return Local()
    if request.param == "ray":
        request.getfixturevalue("ray_of_this_machine")
        return Ray(cpus=1)
    pytest.importorskip("submitit")
    if request.param == "slurm":
        request.getfixturevalue("slurm")
        return Slurm(cpus=1)
    return Slurm(cpus=1, executor="local")


def outcomes(engine: Engine, tasks: list[Any], jobs: int | None = 2) -> dict[str, str | None]:
    """The failure of each task, in the order in which they ended."""
    ended = [progress for progress in engine.run(tasks, jobs) if progress.ended is not None]
    assert len(ended) == len(tasks)
    return {progress.ended.name: progress.failure for progress in ended if progress.ended is not None}


def test_the_contract(engine: Engine) -> None:
    tasks = [
        task("after after", "succeeds", "after"),
        task("after", "succeeds", "first"),
        task("first"),
        task("not run", "succeeds", "raises"),
        task("not run either", "succeeds", "not run"),
        task("raises", "raises"),
        task("killed", "killed"),
        task("refused", "refused"),
    ]
    found = outcomes(engine, tasks)
    assert [*found].index("first") < [*found].index("after") < [*found].index("after after")
    assert "killed" in str(found.pop("killed"))
    assert found == {
        "first": None,
        "after": None,
        "after after": None,
        "raises": "ValueError: not this way",
        "not run": "ValueError: not this way",
        "not run either": "ValueError: not this way",
        "refused": "seed x: why",
    }
    started = {path.stem: path.read_text().splitlines() for path in Path().glob("*.started")}
    assert not {"not run", "not run either"} & started.keys()
    # With one thread, and once, unless an engine tries again what was killed.
    assert all({*lines} == {f"{lines[0].split()[0]} 1"} for lines in started.values())
    assert all(len(lines) == 1 for name, lines in started.items() if name != "killed")
    assert "this is succeeds" in Path("logs/first.log").read_text()
    assert "not this way" in Path("logs/raises.log").read_text()


def test_no_tasks_are_no_work(engine: Engine) -> None:
    assert outcomes(engine, []) == {}
