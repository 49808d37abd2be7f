"""The engines of benchmarks: one contract for all, and clusters on this machine."""

from __future__ import annotations

import csv
import importlib.util
import itertools
import json
import os
import secrets
import shlex
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bdclean.benchmark.engines import Engine, Local, Ray, Slurm
from bdclean.benchmark.engines.slurm import _batches
from bdclean.cli.main import main
from bdclean.engine.trainer import Trainer
from bdclean.errors import InputError
from tests.conftest import CONFIGS, write_noise
from tests.trivial import task, waiting

ROOT = Path(__file__).parents[1]
TOKEN = secrets.token_hex(32)
"""What clusters ask for, as anyone could run code on them otherwise; Ray would write one into the home folder."""
FAKE = Path(__file__).with_name("fake_slurm.py")
GUIDE = ROOT / "docs" / "guides" / "clusters.md"
COMMANDS = ("sbatch", "srun", "sacct", "scontrol", "scancel")
APART = "BDCLEAN_RAY_TESTS"
"""Set in the process of tests that start Ray: its threads stay, and other tests fork."""
with_ray = pytest.mark.skipif(APART not in os.environ, reason="runs in a process of its own")


def needs(*libraries: str) -> None:
    """Skip a test without the libraries; they are not imported, as Ray would start threads."""
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of engines import this package and these tests from here, and clusters keep to themselves."""
    # On a busy machine, the niceness that Ray gives its processes would stop them.
    variables = {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    for name, value in (variables | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with commands of SLURM; the folder of their notes."""
    # It remembers the states of jobs by their numbers, which begin anew in each test.
    pytest.importorskip("submitit").SlurmJob.watcher.clear()
    commands, notes = tmp_path / "commands", tmp_path / "slurm"
    commands.mkdir()
    notes.mkdir()
    for name in COMMANDS:
        path = commands / name
        path.write_text(f"#!{sys.executable} -S\n{FAKE.read_text()}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(notes))
    return notes


@pytest.fixture
def ray_of_this_machine() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    ray.init("local", num_cpus=2, include_dashboard=False, configure_logging=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(params=["ray"] if APART in os.environ else ["local", "slurm", "slurm through local processes"])
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


@pytest.mark.skipif(APART in os.environ, reason="is the process of its own")
@pytest.mark.parametrize("speed", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_ray(speed: str) -> None:
    needs("ray")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "0",
        "-q",
        "-k",
        "ray",
        "-m",
        speed,
        "-p",
        "no:cacheprovider",
        __file__,
    ]
    environment = os.environ | {APART: "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


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
    assert outcomes(engine, []) == {}


@pytest.mark.skipif(APART in os.environ, reason="is the process of Ray")
def test_local_tasks_have_no_more_threads_than_the_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdclean.benchmark.engines.local.cores", lambda: 4)
    for limit, threads in (("1", "1"), ("3", "3"), ("8", "4")):
        monkeypatch.setenv("OMP_NUM_THREADS", limit)
        outcomes(Local(), [task(limit)], 1)
        assert Path(f"{limit}.started").read_text() == f"succeeds {threads}\n"


def test_batches_need_only_earlier_ones() -> None:
    tasks = [task("c", "", "b"), task("b", "", "a"), task("a"), task("d", "", "a"), task("e")]
    names = [[one.name for one in batch] for batch in _batches(tasks, 10)]
    assert names == [["a", "e"], ["b", "d"], ["c"]]
    assert [[one.name for one in batch] for batch in _batches(tasks, 1)] == [["a"], ["e"], ["b"], ["d"], ["c"]]


def test_jobs_can_be_debugged_in_this_process() -> None:
    pytest.importorskip("submitit")
    tasks = [task("not run", "succeeds", "raises"), task("raises", "raises"), task("good")]
    failure = "ValueError: not this way"
    assert outcomes(Slurm(executor="debug"), tasks) == {"good": None, "raises": failure, "not run": failure}


def test_a_job_of_slurm_that_times_out_starts_again_as_often_as_asked(slurm: Path) -> None:
    pytest.importorskip("submitit")
    again, often = task("again", "timed out"), task("often", "timed out")
    assert outcomes(Slurm(cpus=1, time=1, requeues=1), [again]) == {"again": None}
    assert Path("again.started").read_text() == "timed out 1\n" * 2
    found = outcomes(Slurm(cpus=1, time=1, requeues=0), [often])
    assert "timed-out too many times" in str(found["often"])


def test_jobs_of_slurm_have_the_options_and_end_with_the_benchmark(slurm: Path) -> None:
    pytest.importorskip("submitit")
    options: dict[str, Any] = {"partition": "gpu", "time": 90, "memory": 1.5, "gpus": 1, "cpus": 3}
    engine = Slurm(**options, parameters={"account": "vision", "nice": 10})
    progress = engine.run([waiting(name, name, "never") for name in "abc"] + [task("d", "succeeds", "a")], 2)
    assert any(one.working for one in itertools.islice(progress, 100))
    script = Path(slurm, "100.sh").read_text()
    words = {line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")}
    expected = {"partition=gpu", "time=90", "mem=1536MB", "gpus-per-node=1", "cpus-per-task=3", "array=0-2%2"}
    assert {f"--{word}" for word in (*expected, "account=vision", "nice=10")} <= words
    assert "--dependency=afterany:100" in Path(slurm, "101.sh").read_text()
    progress.close()  # type: ignore[attr-defined]  # it is a generator
    assert {path.read_text() for path in slurm.glob("*.state")} == {"CANCELLED"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--engine Slurms", "--engine Slurms: no such class; did you mean Slurm?"),
        ("--engine pbs", "--engine pbs: no such class; there are Local, Ray, Slurm"),
        ("--engine.partition gpu", "--engine.partition: needs a class, --engine NAME"),
        ("--engine slurm --engine.partitions gpu", "--engine.partitions: no such option; did you mean --engine.parti"),
        ("--engine slurm --engine.address auto", "--engine.address: no such option"),
        ("--engine slurm --engine.time 0", "--engine.time 0: must be at least 1"),
        ("--engine slurm --engine.time long", "--engine.time long: no such value; expected a whole number"),
        ("--engine slurm --engine.executor pbs", "--engine.executor pbs: no such value; expected slurm, local, debug"),
        ("--engine slurm", "--engine Slurm: this machine has no sbatch"),
        ("--engine ray --engine.gpus 1.5", "--engine.gpus 1.5: must be whole, or less than 1"),
        ("--engine ray --engine.cpus -1", "--engine.cpus -1.0: must be at least 0"),
        ("--engine ray --engine.address 127.0.0.1:1", "--engine.address 127.0.0.1:1: no Ray cluster there"),
    ],
)
def test_wrong_engines_are_one_line(words: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    needs("submitit", "ray")
    grid = ["--suspects", "{a: {}}", "--methods", "{CLP: {}}", "--folder", "bench"]
    with pytest.raises(SystemExit) as caught:
        main(["benchmark", *grid, *words.split()])
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert caught.value.code == 2
    assert line.startswith(f"bdclean: error: {expected}")
    assert not list(Path().glob("bench/logs/*"))


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ("ray", "--engine.time: no such option"),
        ({"class_path": "slurm", "init_args": {"cpus": 0}}, "--engine.cpus 0: must be at least 1"),
    ],
)
def test_an_engine_of_a_file_overrides_one_of_a_variable(
    engine: Any, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("submitit", "ray")
    monkeypatch.setenv("BDCLEAN_BENCHMARK__ENGINE", "local")
    Path("grid.yaml").write_text(yaml.safe_dump({"suspects": {"a": {}}, "methods": {"CLP": {}}, "engine": engine}))
    with pytest.raises(SystemExit):
        main(["benchmark", "--config", "grid.yaml", "--engine.time", "5"])
    assert capsys.readouterr().err.startswith(f"bdclean: error: {expected}")


@pytest.mark.usefixtures("slurm")
def test_a_refused_job_is_one_line() -> None:
    pytest.importorskip("submitit")
    with pytest.raises(
        InputError, match="^engine Slurm: sbatch refuses the jobs .*: invalid partition specified: miss"
    ):
        list(Slurm(partition="missing").run([task("a")], None))


@pytest.mark.parametrize(("name", "library"), [("Slurm", "submitit"), ("Ray", "ray")])
def test_a_missing_library_is_one_line(
    name: str, library: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    grid = ["--suspects", "{a: {}}", "--methods", "{CLP: {}}", "--folder", "bench"]
    with pytest.raises(SystemExit) as caught:
        main(["benchmark", *grid, "--engine", name])
    assert caught.value.code == 2
    needed = f'needs {library}: pip install "bdclean[{name.lower()}]"'
    assert capsys.readouterr().err == f"bdclean: error: --engine {name}: {needed}\n"
    assert not Path("bench").exists()


TINY = {
    "data.source": "tiny.npz",
    "model.arch": "small_cnn",
    "trainer.max_epochs": 1,
    "trainer.accelerator": "cpu",
    "data.attack": "BadNets",
}
HOSTILE = {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "x", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
"""Variables with which Lightning would expect two processes."""


def tiny_grid(seeds: list[int]) -> None:
    write_noise("tiny.npz", 80)
    methods = {"CLP": {"trainer.accelerator": "cpu"}}
    grid = {"folder": "bench", "suspects": {"BadNets": TINY}, "methods": methods, "seeds": seeds}
    Path("grid.yaml").write_text(yaml.safe_dump(grid))


def errors_of_cells() -> list[str]:
    with open("bench/results.csv", newline="") as file:
        return [row["error"] for row in csv.DictReader(file)]


@pytest.mark.parametrize("executor", ["local", pytest.param("slurm", marks=pytest.mark.slow)])
def test_a_benchmark_in_jobs(executor: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("submitit")
    if executor == "slurm":
        request.getfixturevalue("slurm")
    tiny_grid([0])
    main(["benchmark", "--config", "grid.yaml", *f"--engine slurm --engine.executor {executor} --jobs 1".split()])
    assert errors_of_cells() == [""]
    assert capsys.readouterr().out.startswith("1 suspects to train and 1 cells to run\n")
    assert len(list(Path("bench/suspects").iterdir())) == 1


def test_a_cell_is_one_process_whatever_the_variables_of_slurm_say(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_grid([0])
    main(["benchmark", "--config", "grid.yaml", "--list"])
    (command,) = capsys.readouterr().out.splitlines()
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError, match="--ntasks=2"):
        Trainer(accelerator="cpu", logger=False)
    main(shlex.split(command)[1:])
    (result,) = Path("bench/cells").glob("*.json")
    assert json.loads(result.read_text())["method"] == "CLP"
    assert os.environ["SLURM_JOB_NAME"] == HOSTILE["SLURM_JOB_NAME"]


@pytest.fixture
def two_nodes() -> Iterator[Any]:
    """A Ray cluster of two nodes with one core each, besides its head."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.nodes = [cluster.add_node(num_cpus=1, env_vars={"NODE": name}) for name in ("first", "second")]
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@with_ray
def test_a_node_of_ray_dies(two_nodes: Any) -> None:
    notes = {name: Path(name) for name in "abcd"}

    def kill() -> None:
        while not all(notes[name].exists() for name in "ab"):
            time.sleep(0.1)
        two_nodes.remove_node(two_nodes.nodes[1], allow_graceful=False)
        Path("released").touch()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    found = outcomes(Ray(address=two_nodes.address), [waiting(name, name, "released") for name in "abcd"], None)
    killer.join()
    assert found == dict.fromkeys("abcd")
    nodes = {name: [line.split()[1] for line in path.read_text().splitlines()] for name, path in notes.items()}
    # Only the task at work on the dead node ran twice.
    assert sorted(map(tuple, nodes.values())) == [("first",), ("first",), ("first",), ("second", "first")]


@with_ray
@pytest.mark.slow
def test_a_benchmark_on_ray_loses_only_cells_at_work_on_a_dead_node(two_nodes: Any) -> None:
    tiny_grid([0, 1, 2])
    kept: dict[Path, int] = {}

    def kill() -> None:
        while not list(Path().glob("bench/cells/*.json")):
            time.sleep(0.05)
        two_nodes.remove_node(two_nodes.nodes[1], allow_graceful=False)
        kept.update({path: path.stat().st_mtime_ns for path in Path("bench").glob("*/*.[jc]*")})

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    main(["benchmark", "--config", "grid.yaml", "--engine", "ray", "--engine.address", two_nodes.address])
    killer.join()
    assert errors_of_cells() == [""] * 3
    assert kept
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())


@pytest.mark.slow
def test_training_on_two_nodes_as_in_the_guide() -> None:
    (block,) = (one for one in GUIDE.read_text().split("```") if one.startswith("bash\ntorchrun"))
    lines = [line for line in block.replace("\\\n", " ").splitlines() if line.startswith("torchrun")]
    assert len(lines) == 2
    tiny_grid([0])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    options = [f"--{name}={value}" for name, value in TINY.items()] + ["--trainer.enable_progress_bar=false"]
    places = {"10.0.0.1": "127.0.0.1", "29500": port, "configs/badnet.yaml": str(CONFIGS / "badnet.yaml")}
    nodes = []
    for number, line in enumerate(lines):
        words = [places.get(word, word) for word in shlex.split(line)]
        with Path(f"node{number}").open("w") as file:
            nodes.append(subprocess.Popen([*words, *options], stdout=file, stderr=file))
    assert [node.wait(300) for node in nodes] == [0, 0]
    # The first process of all reports.
    assert ["Wrote suspect.ckpt" in Path(name).read_text() for name in ("node0", "node1")] == [True, False]
    assert Path("suspect.ckpt").exists()
