"""Benchmarks: the grid, resuming, processes, tables and the page."""

import csv
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from bdclean.benchmark import hours, tables, work
from bdclean.benchmark.grid import arguments, make_grid
from bdclean.benchmark.work import Command
from bdclean.cli.main import check, estimate, execute, main
from bdclean.engine.process import peak_memory

TINY = {"data.source": "tiny.npz", "model.arch": "small_cnn", "trainer.max_epochs": 1, "trainer.accelerator": "cpu"}
GRID: dict[str, Any] = {
    "folder": "bench",
    "suspects": {
        "BadNets": {**TINY, "data.attack": "BadNets"},
        "never backdoored": {**TINY, "data.attack": "BadNets", "data.attack.poison_rate": 0.0},
    },
    "methods": {
        "CLP": {"trainer.accelerator": "cpu"},
        "FT (labels)": {
            "method": "FineTune",
            "method.supervision": "labels",
            "trainer.max_epochs": 1,
            "trainer.accelerator": "cpu",
        },
        "wrong": {"method": "CLP", "method.u": -1},
    },
}


@pytest.fixture(autouse=True)
def _tiny_images(_in_an_empty_folder: None) -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(240) % 4
    images = generator.integers(0, 100, (240, 16, 16, 3), dtype=np.uint8)
    images[..., 0] += (40 * labels).astype(np.uint8)[:, None, None]
    train, test = slice(0, 200), slice(200, 240)
    np.savez("tiny.npz", x_train=images[train], y_train=labels[train], x_test=images[test], y_test=labels[test])
    Path("grid.yaml").write_text(yaml.safe_dump(GRID))


def results() -> dict[tuple[str, str], dict[str, str]]:
    with open("bench/results.csv", newline="") as file:
        return {(row["suspect"], row["method"]): row for row in csv.DictReader(file)}


def test_the_grid_combines_everything() -> None:
    cells = make_grid({"a": {}, "b": {}}, {"FineTune": {}, "CLP": {}}, {"n": {}}, {"i": {}, "j": {}}, [0, 1, 2])
    assert len(cells) == len({cell.key for cell in cells}) == 2 * 2 * 2 * 3
    assert len({cell.suspect for cell in cells}) == 2 * 3
    assert {"--method=CLP", "--seed_everything=2", "--scan=false", "--trainer.limit_val_batches=0"} <= set(
        cells[-1].arguments
    )
    assert {"--data.seed=2", "--data.attack.seed=2"} <= set(cells[-1].suspect.arguments)


def test_configurations_come_first_and_later_options_after_earlier_ones() -> None:
    (cell,) = make_grid(
        {"a": {"config": "a.yaml", "model.lr": 1}},
        {"m": {"config": "m.yaml"}},
        {"n": {"config": "n.yaml", "model.lr": 2}},
        {"i": {"data.unlabeled": "x"}},
        [0],
    )
    assert cell.suspect.arguments[:2] == ("--config=a.yaml", "--config=n.yaml")
    assert "--model.lr=2" in cell.suspect.arguments
    assert "--model.lr=1" not in cell.suspect.arguments
    fixed = ("--seed_everything=0", "--scan=false", "--trainer.limit_val_batches=0")
    assert cell.arguments == ("--config=m.yaml", *fixed, "--data.unlabeled=x")


def test_no_attack_stays_no_attack() -> None:
    Path("none.yaml").write_text("data: {attack: null}")
    for options in ({"data.attack": None}, {"config": "none.yaml"}):
        (cell,) = make_grid({"a": options}, {"CLP": {}}, {"n": {}}, {"i": {}}, [0])
        assert not any("attack.seed" in word for word in cell.suspect.arguments)
    assert arguments({"data.attack": None}) == ("--data.attack=null",)


def test_a_key_changes_with_the_options_and_with_the_configuration_they_name() -> None:
    def key(options: dict[str, Any]) -> str:
        return make_grid({"a": options}, {"CLP": {}}, {"n": {}}, {"i": {}}, [0])[0].key

    Path("some.yaml").write_text("one: 1")
    before = key({"config": "some.yaml"})
    assert before == key({"config": "some.yaml"}) != key({"config": "some.yaml", "model.lr": 0.1})
    Path("some.yaml").write_text("one: 2")
    assert before != key({"config": "some.yaml"})


def test_arguments_are_words() -> None:
    words = arguments({"a": 1, "b": "x", "c": [0.1, -2], "d": None, "e": False, "config": None})
    assert words == ("--a=1", "--b=x", "--c=[0.1, -2]", "--d=null", "--e=false")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system keeps them apart")
def test_the_memory_of_a_process_excludes_its_parent() -> None:
    code = f"import re, sys\nfrom pathlib import Path\n{inspect.getsource(peak_memory)}\nprint(peak_memory())"
    started = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    # This process has imported torch.
    assert 0 < started < 100 < peak_memory()


def test_a_benchmark_from_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    main(["benchmark", "--config", "grid.yaml"])
    found = results()
    assert len(found) == 6
    for suspect in ("BadNets", "never backdoored"):
        assert "--method.u -1.0: must be at least 0" in found[suspect, "wrong"]["error"]
        for method in ("CLP", "FT (labels)"):
            row = found[suspect, method]
            assert not row["error"]
            assert 0 <= float(row["acc"]) <= 100
            assert float(row["peak_memory"]) > 0
    assert found["BadNets", "CLP"]["backdoored"] == "True"
    assert found["BadNets", "CLP"]["der"]
    assert found["never backdoored", "CLP"]["backdoored"] == "False"
    assert not found["never backdoored", "CLP"]["der"]
    text = Path("bench/results.md").read_text()
    out = capsys.readouterr().out
    assert text in out
    assert out.startswith("2 suspects to train and 6 cells to run: ")
    assert "| FT (labels) |" in text
    assert "## Failed" in text
    assert "cells failed; the reasons are in the section Failed" in text
    page = Path("bench/index.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 2
    assert page.index("<h2>Legend</h2>") < page.index("<table")
    assert page.count('<table class="sortable">') == 3
    assert "http" not in page
    assert "must be at least 0" in page
    for name in ("heatmap.png", "scatter.png"):
        assert Path("bench", name).read_bytes().startswith(b"\x89PNG")
    assert len(list(Path("bench/tensorboard").rglob("events*"))) == 4
    assert "2 of 2" in text
    assert "0 of 2" in text

    # A second run only retries failed cells.
    written = {path: path.stat().st_mtime_ns for path in Path("bench").rglob("*.ckpt")}
    cells = {path: path.stat().st_mtime_ns for path in Path("bench/cells").glob("*.json")}
    main(["benchmark", "--config", "grid.yaml"])
    assert all(path.stat().st_mtime_ns == when for path, when in written.items())
    again = {path for path, when in cells.items() if path.stat().st_mtime_ns != when}
    assert {"error" in json.loads(path.read_text()) for path in again} == {True}
    assert len(again) == 2
    assert results() == found
    assert len(list(Path("bench/tensorboard").rglob("events*"))) == 4


def test_an_error_never_replaces_a_result() -> None:
    (cell,) = make_grid({"a": {}}, {"CLP": {}}, {"n": {}}, {"i": {}}, [0])
    folder = Path("bench")
    cell.path(folder).parent.mkdir(parents=True)
    assert work.fail(cell, folder, "first\nline") == work.read(cell.path(folder)) == {"error": "first line"}
    assert work.fail(cell, folder, "second") == work.read(cell.path(folder)) == {"error": "second"}
    cell.path(folder).write_text('{"method": "CLP"}')
    assert work.fail(cell, folder, "third") == work.read(cell.path(folder)) == {"method": "CLP"}


def test_the_estimate_counts_images_epochs_methods_and_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdclean.tasks.announcing.seconds_per_image", lambda *_: 0.001)

    def seconds(epochs: int, seeds: list[int], methods: dict[str, Any]) -> float:
        suspects = {"a": {**TINY, "data.attack": "BadNets", "trainer.max_epochs": epochs}}
        grid = make_grid(suspects, methods, {"n": {}}, {"i": {}}, seeds)
        return hours.estimate({cell.suspect for cell in grid}, grid, Command(execute, check, estimate))

    once = seconds(1000, [0], {"CLP": {}})
    assert once > 0
    assert seconds(1000, [0, 1, 2], {"CLP": {}}) == pytest.approx(3 * once, rel=0.01)
    assert seconds(1, [0], {"FineTune": {"trainer.max_epochs": 5000}}) > seconds(
        1, [0], {"FineTune": {"trainer.max_epochs": 1}}
    )
    assert seconds(1, [0], {"CLP": {"method.u": -1}}) < once


def test_a_suspect_starts_from_the_weights_of_another(capsys: pytest.CaptureFixture[str]) -> None:
    suspects = {
        "tuned": {**TINY, "data.attack": "BadNets", "start": "clean", "model.lr": 1e-9},
        "clean": {**TINY, "data.attack": None},
    }
    Path("grid.yaml").write_text(yaml.safe_dump(GRID | {"suspects": suspects, "methods": {"CLP": {}}}))
    main(["benchmark", "--config", "grid.yaml"])
    tuned, clean = (torch.load(next(Path("bench/suspects").glob(f"{name}.*"))) for name in suspects)
    # With such a low rate the weights do not change, but the statistics of batch norms do.
    weights = [name for name in clean["state_dict"] if name.endswith("weight")]
    assert weights
    assert all(torch.allclose(tuned["state_dict"][name], clean["state_dict"][name], atol=1e-5) for name in weights)
    assert {suspect for suspect, _ in results()} == {"tuned", "clean"}


def test_methods_and_images_are_combined_with_chosen_names_only() -> None:
    suspects: dict[str, Any] = {"a": {}, "b": {}, "c": {"only": {"seeds": [1], "methods": ["FineTune"]}}}
    methods: dict[str, Any] = {"CLP": {"only": {"seeds": [0]}}, "FineTune": {}}
    images: dict[str, Any] = {"i": {}, "j": {"only": {"methods": ["FineTune"], "suspects": ["b"]}}}
    cells = make_grid(suspects, methods, {"n": {}}, images, [0, 1])
    found = {(cell.suspect.name, cell.method, cell.images, cell.suspect.seed) for cell in cells}
    assert found == {
        *((suspect, "CLP", "i", 0) for suspect in "ab"),
        *((suspect, "FineTune", "i", seed) for suspect in "ab" for seed in (0, 1)),
        *(("b", "FineTune", "j", seed) for seed in (0, 1)),
        ("c", "FineTune", "i", 1),
    }
    assert len(cells) == len(found)
    assert not any("only" in word for cell in cells for word in (*cell.arguments, *cell.suspect.arguments))


def test_a_key_changes_with_the_suspect_that_training_starts_from() -> None:
    def keys(lr: float) -> tuple[str, str]:
        suspects: dict[str, Any] = {"a": {"start": "b"}, "b": {"model.lr": lr}}
        cell = make_grid(suspects, {"CLP": {}}, {"n": {}}, {"i": {}}, [0])[0]
        return cell.suspect.key, cell.key

    assert all(one != other for one, other in zip(keys(0.1), keys(0.2), strict=True))


def test_each_cell_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["benchmark", "--config", "grid.yaml", "--list"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert not list(Path("bench").rglob("*.ckpt"))
    command = next(line for line in lines if "BadNets.given.0.CLP" in line).split()
    assert command[:2] == ["bdclean", "benchmark"]
    main(command[1:])
    (cell,) = Path("bench/cells").glob("*.json")
    assert json.loads(cell.read_text())["method"] == "CLP"
    when = cell.stat().st_mtime_ns
    main(command[1:])
    assert cell.stat().st_mtime_ns == when


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"suspects": {}}, "--suspects: there are none"),
        ({"seeds": []}, "--seeds: there are none"),
        ({"methods": {"a/b": {}}}, "--methods a/b: names have up to 40 letters"),
        ({"methods": {"a" * 41: {}}}, f"--methods {'a' * 41}: names have up to 40 letters"),
        ({"seeds": [1, 1]}, "--seeds [1, 1]: duplicate entries"),
        ({"jobs": 0}, "--jobs 0: must be at least 1"),
        ({"suspects": {"a": {"start": "b"}}}, "--suspects b: a starts from it, and there is no such suspect"),
        (
            {"methods": {"CLP": {"only": {"seeds": [5]}}}},
            "--seeds 5: `only` of CLP names it, but it does not exist",
        ),
        (
            {"methods": {"CLP": {"only": {"seeds": 0}}}},
            "--methods {'seeds': 0}: `only` of CLP is not a mapping of lists",
        ),
        (
            {"methods": {"CLP": {"only": {"seed": [0]}}}},
            "--methods seed: `only` of CLP takes suspects, networks, images, seeds",
        ),
        ({"methods": {"CLP": {"only": {"seeds": []}}}}, "--methods: `only` leaves no cell"),
        (
            {"suspects": {"a": {"start": "b"}, "b": {"start": "a"}}},
            "--suspects b: a starts from it, so it has to start from random weights",
        ),
    ],
)
def test_wrong_grids_end_in_one_line(change: dict[str, Any], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("grid.yaml").write_text(yaml.safe_dump(GRID | change))
    with pytest.raises(SystemExit) as caught:
        main(["benchmark", "--config", "grid.yaml"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(f"bdclean: error: {named}")
    assert not Path("bench").exists()


def test_an_impossible_folder_ends_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bench").write_text("")
    with pytest.raises(SystemExit):
        main(["benchmark", "--config", "grid.yaml"])
    assert capsys.readouterr().err.startswith("bdclean: error: --folder bench: cannot be written")


def test_an_unknown_cell_ends_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["benchmark", "--config", "grid.yaml", "--cell", "nothing"])
    assert "--cell nothing: no such cell" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_benchmark_resumes() -> None:
    Path("grid.yaml").write_text(yaml.safe_dump(GRID | {"seeds": [0, 1], "jobs": 1}))
    command = [sys.executable, "-m", "bdclean", "benchmark", "--config", "grid.yaml"]
    first = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(Path("bench").glob("cells/*.json")):
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    kept = {path: path.read_text() for path in Path("bench/cells").glob("*.json")}
    assert 0 < len(kept) < 12
    assert all(json.loads(text) for text in kept.values())
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert all(path.read_text() == text for path, text in kept.items() if "error" not in json.loads(text))
    assert len(results()) == 6
    with open("bench/results.csv") as file:
        assert len(file.readlines()) == 1 + 12


def _alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_the_tasks_of_a_killed_benchmark_end() -> None:
    script = (
        "from bdclean.benchmark.engines import Local; from tests.trivial import waiting\n"
        "if __name__ == '__main__':\n"
        "    list(Local().run([waiting('a', 'who', 'never')], 1))\n"
    )
    Path("run.py").write_text(script)
    root = str(Path(__file__).parents[1])
    first = subprocess.Popen([sys.executable, "run.py"], env=os.environ | {"PYTHONPATH": root})
    deadline = time.monotonic() + 120
    while not (Path("who").exists() and Path("who").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.kill()
    first.wait()
    worker = int(Path("who").read_text().split()[0])
    while _alive(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_suspect_counts_once_however_many_methods_it_has() -> None:
    rows = [
        tables.Row("a", "n", "i", method, seed, backdoored=True, suspect_acc=acc, acc=50.0)
        for seed, acc in ((0, 90.0), (1, 92.0))
        for method in ("m", "n")
    ]
    rows[0] = replace(rows[0], error="why", backdoored=None)
    text = tables.markdown(tables.sections(rows))
    assert text.count("| (suspects) | 91.0 ± 1.4 ") == 2
    assert "| m | 50.0 |" in text
    assert "1 of 2" in text


def test_weak_suspects_are_reported() -> None:
    usual = {"backdoored": True, "suspect_acc": 90.0, "suspect_asr": 99.0}
    rows = [tables.Row("good", "n", "i", "m", 0, **usual)]
    rows += [tables.Row("weak", "n", "i", method, 0, **usual | {"suspect_asr": 12.0}) for method in "mn"]
    rows += [tables.Row("untrained", "n", "i", "m", 1, backdoored=False, suspect_acc=11.0, suspect_asr=3.0)]
    assert tables.warnings(rows) == [
        "weak (n, seed 0): the attack did not take, ASR 12.0 %",
        "untrained (n, seed 1): the accuracy of the suspect is close to chance, ACC 11.0 %",
    ]
    assert "## Warnings" in tables.markdown(tables.sections(rows))
    assert "## Warnings" not in tables.markdown(tables.sections(rows[:1]))


def test_each_network_and_set_of_images_has_tables() -> None:
    rows = [tables.Row("a", network, images, "m", 0, acc=1.0) for network in ("x", "y") for images in ("i", "j")]
    text = tables.markdown(tables.sections(rows))
    assert all(f"## Methods ({network}, {images} images)" in text for network in "xy" for images in "ij")


def test_figures_are_means_with_standard_deviations() -> None:
    rows = [tables.Row("a", "n", "i", "m", 0, acc=acc) for acc in (90.0, 92.0, None)]
    assert tables.mean(rows, "acc") == "91.0 ± 1.4"
    assert tables.mean(rows[:1], "acc") == "90.0"
    assert tables.mean(rows[2:], "acc") == "-"
