import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bdclean import __version__
from bdclean.benchmark.grid import arguments, files_of
from bdclean.cli.main import main
from bdclean.networks import build_network
from tests.conftest import CONFIGS, QUICK, QUIET, cleanse, quick_attack

BENCHMARKS = sorted(CONFIGS.glob("benchmark/*.yaml"))
ALL_CONFIGS = sorted(set(CONFIGS.rglob("*.yaml")) - set(BENCHMARKS))


def printed_config(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--print_config"])
    assert caught.value.code == 0
    config: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return config


def test_version_is_instant() -> None:
    code = "import sys; from bdclean.__main__ import run; sys.argv[1:] = ['--version']; run(); print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert out[0] == __version__
    assert "torch" not in out


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict", "cleanse"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "--data.source" in text
    assert ("--ckpt " in text) == (command != "fit")
    assert ("--model.lr" in text) == (command == "fit")


@pytest.fixture
def cifar_like() -> Path:
    """Noise with the classes of CIFAR-10 and GTSRB, in files with their names."""
    generator = np.random.default_rng(0)
    for classes, name in ((10, "cifar10"), (43, "gtsrb")):
        arrays: dict[str, Any] = {}
        for split, count in (("train", 430), ("test", 86)):
            arrays[f"x_{split}"] = generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
            arrays[f"y_{split}"] = np.arange(count) % classes
        np.savez(f"{name}.npz", **arrays)
    return Path.cwd()


def setup_of(config: Path) -> list[Path]:
    """The setup file, with images and a network, for an attack's file."""
    setups = {"gtsrb": "gtsrb", "small": "cifar10_small", "shapes": "shapes"}
    setup = setups.get(config.stem.rpartition("_")[2], "cifar10")
    return [CONFIGS / "setup" / f"{setup}.yaml"] if config.parent.name == "attack" else []


@pytest.mark.usefixtures("tiny_shapes", "narrow_networks")
@pytest.mark.parametrize("config", ALL_CONFIGS, ids=[str(path.relative_to(CONFIGS)) for path in ALL_CONFIGS])
def test_every_config_runs(config: Path, cifar_like: Path, tiny_suspect: Path) -> None:
    files = [*setup_of(config), config]
    contents = [yaml.safe_load(path.read_text()) for path in files]
    options = [*QUICK, "--data.batch_size", "4", "--trainer.logger", "false"]
    options += [word for part in ("train", "val", "test") for word in (f"--trainer.limit_{part}_batches", "2")]
    source = next(content["data"]["source"] for content in contents if "source" in content["data"])
    if source != "shapes":
        options += ["--data.source", f"{source}.npz"]
    words = [word for path in files for word in ("--config", str(path))]
    if "method" in contents[-1]:
        main(["cleanse", *words, "--ckpt", str(tiny_suspect), *options])
        assert Path("cleansed.json").exists()
    else:
        attack = contents[-1]["data"].get("attack", {"class_path": "BadNets"})["class_path"]
        main(["fit", *words, *options, *quick_attack(attack)])
        assert Path("suspect.ckpt").exists()


@pytest.mark.parametrize("config", BENCHMARKS, ids=[path.name for path in BENCHMARKS])
def test_the_commands_of_every_benchmark_parse(
    config: Path, tiny_suspect: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    content = yaml.safe_load(config.read_text())
    assert all(Path(file).is_file() for options in content["suspects"].values() for file in files_of(options))
    main(["benchmark", "--config", str(config), "--list"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(set(lines))
    assert all(any(name in line for line in lines) for part in ("suspects", "methods") for name in content[part])
    for name, options in list(content["methods"].items())[:: 1 if len(content["methods"]) < 10 else 6]:
        words = arguments({"method": name, **{key: value for key, value in options.items() if key != "only"}})
        assert "class_path" in printed_config(["cleanse", "--ckpt", str(tiny_suspect), *words], capsys)["method"]


@pytest.mark.usefixtures("tiny_shapes")
def test_all_commands_in_sequence(tiny_suspect: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = cleanse(tiny_suspect, "--trainer.max_epochs", "2")
    assert list(report)[:7] == ["schema", "method", "unlabeled_images", "seconds", "device", "suspect", "cleansed"]
    assert report["method"] == "ScanDistill"
    assert report["unlabeled_images"] == 60
    assert list(report["suspect"]) == ["acc", "asr", "ra"]
    assert list(report["cleansed"]) == ["acc", "asr", "ra", "agreement"]
    assert all(0 <= value <= 100 for network in ("suspect", "cleansed") for value in report[network].values())
    out = capsys.readouterr().out
    assert re.search(r"^scan of the suspect +class +p-value$", out, re.MULTILINE)
    assert "agreement" in out

    main(["validate", "--ckpt", "cleansed.ckpt", *QUIET])
    out = capsys.readouterr().out
    assert re.search(r"^cleansed\.ckpt +\d+\.\d\d +\d+\.\d\d +\d+\.\d\d$", out, re.MULTILINE)
    assert "on the validation images." in out
    assert "val/" not in out
    main(["test", "--ckpt", "cleansed.ckpt", *QUIET])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("cleansed.ckpt "))
    assert line.split()[1:] == [f"{report['cleansed'][name]:.2f}" for name in ("acc", "asr", "ra")]

    # Other code can read it: the state_dict loads into the bare architecture.
    weights = torch.load("cleansed.ckpt", weights_only=True)["state_dict"]
    build_network("small_cnn", 10, 32).load_state_dict(weights)

    main(["predict", "--ckpt", "cleansed.ckpt", *QUIET])
    with open("predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 200
    assert all(0 <= int(row["class"]) < 10 and 0 <= float(row["probability"]) <= 1 for row in rows)


@pytest.mark.usefixtures("tiny_shapes")
def test_images_from_the_suspects_training_set_are_reported(
    tiny_suspect: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pattern = r"(\d+) of the held-out images were in the suspect's training set"
    cleanse(tiny_suspect, "--method", "CLP")
    assert not re.search(pattern, capsys.readouterr().out)
    cleanse(tiny_suspect, "--method", "CLP", "--data.seed", "1")
    (number,) = re.findall(pattern, capsys.readouterr().out)
    assert 40 < int(number) < 60


@pytest.mark.usefixtures("tiny_shapes")
def test_out_of_distribution_images(tiny_suspect: Path) -> None:
    Path("loose").mkdir()
    for index in range(40):
        pixels = np.random.default_rng(index).integers(0, 256, (20 + index, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"loose/{index}.png")
    report = cleanse(
        tiny_suspect, "--trainer.max_epochs", "1", "--data.unlabeled", "loose", "--data.num_unlabeled", "32"
    )
    assert report["unlabeled_images"] == 32
    main(["predict", "--ckpt", "cleansed.ckpt", *QUIET, "--data.unlabeled", "loose"])
    with open("predictions.csv") as file:
        assert [row["image"] for row in csv.DictReader(file)] == sorted(f"loose/{index}.png" for index in range(40))
    # Labelled test images without training images: no validation.
    pixels = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)
    np.savez("test.npz", x_test=pixels, y_test=np.arange(30) % 9)
    distil = ["--method", "Distill", "--trainer.max_epochs", "1", "--data.unlabeled", "loose"]
    report = cleanse(tiny_suspect, *distil, "--data.source", "test.npz")
    assert None not in report["cleansed"].values()
    # Without labelled images, figures are unknown.
    report = cleanse(tiny_suspect, *distil, "--data.source", "null")
    assert set(report["suspect"].values()) == {None}
    assert {name for name, value in report["cleansed"].items() if value is not None} == {"agreement"}
    assert report["held_out_images"] == 4


def test_command_line_before_config_before_checkpoint_before_defaults(
    tiny_suspect: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["cleanse", "--ckpt", str(tiny_suspect)]
    plain = printed_config(base, capsys)
    assert plain["model"]["arch"] == "small_cnn"
    assert plain["data"]["crop_padding"] == 2
    assert plain["data"]["attack"]["init_args"]["margin"] == 1
    Path("own.yaml").write_text("data: {crop_padding: 3, flip: false}\n")
    with_config = printed_config([*base, "--config", "own.yaml"], capsys)
    assert (with_config["data"]["crop_padding"], with_config["data"]["flip"]) == (3, False)
    with_both = printed_config([*base, "--config", "own.yaml", "--data.crop_padding", "1"], capsys)
    assert (with_both["data"]["crop_padding"], with_both["data"]["flip"]) == (1, False)
    Path("ckpt.yaml").write_text(f"ckpt: {tiny_suspect}\n")
    assert printed_config(["cleanse", "--config", "ckpt.yaml"], capsys)["model"]["arch"] == "small_cnn"


def test_environment_variables(
    tiny_suspect: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BDCLEAN_CLEANSE__CKPT", str(tiny_suspect))
    monkeypatch.setenv("BDCLEAN_CLEANSE__TRAINER__MAX_EPOCHS", "7")
    config = printed_config(["cleanse"], capsys)
    assert (config["model"]["arch"], config["trainer"]["max_epochs"]) == ("small_cnn", 7)


def test_method_and_its_options_by_short_names(tiny_suspect: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["cleanse", "--ckpt", str(tiny_suspect)]
    config = printed_config([*base, "--method", "DistillCleanseModule", "--method.lr", "0.5"], capsys)
    assert config["method"]["init_args"]["lr"] == 0.5
    config = printed_config([*base, "--method.ratios", "[0,0,0,0,1]"], capsys)
    assert config["method"]["init_args"]["ratios"] == [0, 0, 0, 0, 1]
    # The stronger options of the default method do not leak into the paper's method.
    config = printed_config([*base, "--method", "DistillCleanseModule"], capsys)
    assert (config["method"]["init_args"]["ratios"], config["method"]["init_args"]["lr"]) == (None, 0.01)
    assert printed_config(base, capsys)["method"]["init_args"]["ratios"] == 0.2


WRONG = {
    "fit --data.attack Nope": "--data.attack Nope: no such class; there are ADBA, AdaptiveBlend",
    "fit --data.attack.poison_rate 7": "--data.attack.poison_rate 7.0: must be at least 0 and at most 1",
    "fit --data.attack.poison_rate 0.00001": "--data.attack.poison_rate 1e-05: poisons none of 510 images",
    "fit --data.attack.target_class 10": "--data.attack.target_class 10: the data have classes 0 to 9",
    "fit --data.source nowhere": "--data.source nowhere: neither a folder",
    "fit --model.arch resnet_18": "--model.arch resnet_18: no such network; did you mean resnet18",
    "fit --model.lr abc": "--model.lr abc: no such value; expected a number",
    "fit --model.lr -1": "--model.lr -1.0",
    "fit --model.lr 1e30": "--model.lr 1e+30: too high, the loss became nan in epoch 0",
    "fit --output nowhere/suspect.ckpt": "--output nowhere/suspect.ckpt: there is no folder nowhere",
    "fit --ckpt_path nowhere.ckpt": "--ckpt_path nowhere.ckpt: no such file",
    "fit --model.arch small_cnn --ckpt_path SUSPECT": "holds a network, but not the state of its training",
    "fit --ckpt_path four.npz": "--ckpt_path four.npz: not a",
    "fit --output suspect.json": "--output suspect.json: that is the name of the report",
    "fit --config broken.yaml": "--config",
    "fit --model.momentum -1": "--model.momentum -1.0",
    "fit --data.source null --data.unlabeled empty --data.image_size 8": "--data.source null: has no classes to learn",
    "fit --data.source empty --data.image_size 8": "--data.source empty: has no labelled images of two classes or more",
    "fit --data.attack.size 33": "--data.attack.size 33: larger than images of 32 pixels",
    "fit --trainer.accelerator gpu --trainer.devices 4": "--trainer.accelerator gpu",
    "fit --trainer.devices 5000": "--trainer.devices 5000: starts as many processes on CPUs",
    "fit --nonsense 3": "--nonsense: no such option; bdclean fit --help lists them",
    "fit --data.atack BadNets": "--data.atack: no such option; did you mean --data.attack?",
    "fit --data.attack BadNet": "--data.attack BadNet: no such class; did you mean BadNets?",
    "fit --data.attack.position bottom_left": (
        "--data.attack.position bottom_left: no such value; did you mean bottom-left? Expected top-left, top-right,"
    ),
    "fit --trainer.max_steps abc": "--trainer.max_steps abc: no such value; expected a whole number",
    "fit --data.batch_size abc": "--data.batch_size abc: no such value; expected a whole number or null",
    "fit --trainer.strategy foo": "--trainer.strategy foo: You selected an invalid strategy name",
    "fit --trainer.devices x": "--trainer.devices x: `devices` selected with `CPUAccelerator` should be an int > 0",
    "fit --trainer.callbacks EarlyStopping": "--trainer.callbacks EarlyStopping: needs --trainer.callbacks.monitor",
    "fit --trainer.max_epochs 0": "--trainer.max_epochs 0: no training step",
    "fit --trainer.max_steps 0": "--trainer.max_steps 0: no training step",
    "fit --trainer.limit_train_batches 0": "no training step, so the network would stay untrained",
    "fit --trainer.max_time 00:00:00:00": "--trainer.max_time 00:00:00:00: no training step",
    "fitt": "fitt: no such command; did you mean fit?",
    "test": "--ckpt: required",
    "test --ck SUSPECT": "--ck",
    "tset --ckpt SUSPECT": "tset: no such command; did you mean test?",
    "test --config nowhere.yaml": "--config nowhere.yaml: no such file",
    "benchmark": "--suspects and --methods: required",
    "test --config broken.yaml": "--config broken.yaml: not readable as YAML",
    "test --ckpt nowhere.ckpt": "--ckpt nowhere.ckpt: no such file",
    "cleanse --ckpt SUSPECT --method Nope": "--method Nope: no such class; there are ANP, BAN, BNP",
    "cleanse --ckpt SUSPECT --method.ratio 3": "--method.ratio: no such option; did you mean --method.ratios?",
    "cleanse --ckpt SUSPECT --method.help NoSuch": "--method.help NoSuch: no such class; there are ANP, BAN, BNP",
    "cleanse --ckpt SUSPECT --method FineTune --method.supervision label": (
        "--method.supervision label: no such value; did you mean labels? Expected teacher, labels"
    ),
    "cleanse --ckpt SUSPECT --method Distill --trainer.limit_train_batches 0": "no training step, but Distill",
    "cleanse --ckpt SUSPECT --method.ratios [1]": "--method.ratios [1.0]: 1 numbers, but the network has 5 stages",
    "cleanse --ckpt SUSPECT --method Distill --method.lr 1e30 --trainer.max_epochs 3": (
        "--method.lr 1e+30: too high, the training diverged 7 times, the last time at 1/4096 of it; Distill has 0.01 by"
    ),
    "cleanse --ckpt SUSPECT --method.lr 0": "--method.lr 0.0: must be above 0",
    "cleanse --ckpt SUSPECT --data.image_size 64": "--data.image_size 64: the network takes images of 32 pixels",
    "cleanse --ckpt SUSPECT --data.unlabeled damaged": "--data.unlabeled damaged: 1 of 1 images are unreadable",
    "cleanse --ckpt SUSPECT --data.unlabeled empty": "--data.unlabeled empty: no images",
    "cleanse --ckpt SUSPECT --trainer.max_epochs -1": "--trainer.max_epochs -1: must be at least 0",
    "cleanse --ckpt SUSPECT --data.source four.npz": (
        "--model.num_classes 10: the labelled images have 4 classes; --data.unlabeled takes images without labels"
    ),
}


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize("command", WRONG)
def test_wrong_input_ends_in_one_line(command: str, tiny_suspect: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    Path("damaged").mkdir()
    Path("damaged/0.png").write_bytes(b"no image")
    Path("broken.yaml").write_text("data: [")
    few = {f"x_{s}": np.zeros((40, 32, 32, 3), np.uint8) for s in ("train", "test")}
    np.savez("four.npz", **few, **{f"y_{s}": np.arange(40) % 4 for s in ("train", "test")})
    before = set(Path.cwd().iterdir())
    words = [str(tiny_suspect) if word == "SUSPECT" else word for word in command.split()]
    with pytest.raises(SystemExit) as caught:
        main([words[0], *([] if words[0] in ("fitt", "tset", "benchmark") else QUICK), *words[1:]])
    lines = capsys.readouterr().err.strip().splitlines()
    assert caught.value.code == 2
    assert len(lines) == 1
    assert WRONG[command] in lines[0]
    # Logs of a training are kept.
    assert {path.name for path in set(Path.cwd().iterdir()) - before} == ({"runs"} if "diverged" in lines[0] else set())


@pytest.mark.usefixtures("tiny_shapes")
def test_tensorboard(tiny_suspect: Path) -> None:
    cleanse(tiny_suspect, "--trainer.max_epochs", "3")
    for folder, network, names in (
        (tiny_suspect.parent / "runs/fit/version_0", "AttackModule", ("suspect",)),
        (Path("runs/cleanse/version_0"), "ScanDistill", ("suspect", "cleansed")),
    ):
        events = EventAccumulator(str(folder), {"images": 0, "tensors": 0, "scalars": 0}).Reload()
        tags = events.Tags()
        assert {"train/loss", "val/acc", "val/asr", "val/ra", "test/acc"} <= set(tags["scalars"])
        assert not [tag for tag in tags["scalars"] if tag.startswith(("final/", "hp_metric"))]
        metrics = events.SummaryMetadata("_hparams_/experiment").plugin_data.content
        assert all(name in metrics for name in (b"test/acc", b"test/asr", b"test/ra"))
        assert ("figures/text_summary" in tags["tensors"]) == (network == "AttackModule")
        pictures = {f"confusion/{part} {name}" for part in ("clean", "triggered") for name in names}
        trained = {"trigger/training images"} if network == "AttackModule" else set()
        assert set(tags["images"]) == pictures | {"trigger/clean, triggered, difference"} | trained
        assert "config/text_summary" in tags["tensors"]
        hparams = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        assert b"model/arch" in hparams
        assert b"attack/margin" in hparams
        assert b"attack_options" not in hparams
        assert "custom_scalars__config__" in tags["tensors"]
        assert b"model/lr" in hparams
        assert (b"model/ratios" in hparams) == (network != "AttackModule")
        assert network.encode() in hparams


@pytest.mark.usefixtures("tiny_shapes")
def test_a_run_resumes_from_its_checkpoint(tiny_suspect: Path) -> None:
    last = next((tiny_suspect.parent / "runs/fit/version_0/checkpoints").glob("*.ckpt"))
    options = [*QUIET, "--config", str(CONFIGS / "badnet.yaml"), "--trainer.max_epochs", "2"]
    main(["fit", *options, "--ckpt_path", str(last)])
    assert torch.load("suspect.ckpt", weights_only=True)["epoch"] == 2


def test_ctrl_c_leaves_the_last_good_checkpoint(cifar_like: Path) -> None:
    command = [sys.executable, "-m", "bdclean", "fit", "--config", str(CONFIGS / "badnet.yaml"), *QUIET]
    options = ["--data.source", "cifar10.npz", "--trainer.max_epochs", "10000"]
    # A shell makes background processes, such as these tests, ignore Ctrl-C.
    process = subprocess.Popen(
        [*command, *options],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 120
        while not list(Path("runs").rglob("*.ckpt")) and time.monotonic() < deadline:
            time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    last = next(Path("runs").rglob("*.ckpt"))
    assert process.returncode == 130
    assert err.strip() == f"bdclean: interrupted: did not write suspect.ckpt; the last checkpoint is {last}"
    assert not Path("suspect.ckpt").exists()
    assert json.dumps(torch.load(last, weights_only=True)["hyper_parameters"])
    main(["test", "--ckpt", str(last), "--data.source", "cifar10.npz", *QUIET])


@pytest.mark.usefixtures("tiny_shapes")
def test_two_processes_measure_the_same_as_one(tiny_suspect: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main(["test", "--ckpt", str(tiny_suspect), *QUIET])
    alone = capfd.readouterr().out
    main(["test", "--ckpt", str(tiny_suspect), *QUIET, "--trainer.devices", "2", "--trainer.strategy", "ddp_fork"])
    several = capfd.readouterr().out
    (table,) = (line for line in alone.splitlines() if line.startswith(f"{tiny_suspect} "))
    assert len(table.split()) == 4
    assert table in several.splitlines()


SOURCE = ["--data.source", "cifar10.npz", "--trainer.max_epochs", "1", "--trainer.devices", "2", *QUIET]
DISTIL = ["--method", "Distill", "--data.num_unlabeled", "41", "--overwrite", "true"]


def test_two_processes_write_one_report(cifar_like: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def check(text: str) -> None:
        assert text.count("All figures in percent") == 1
        report = json.loads(Path("cleansed.json").read_text())
        assert report["device"].startswith("2 x ")
        assert report["unlabeled_images"] == 41
        Path("cleansed.json").unlink()

    forked = [*SOURCE, "--trainer.strategy", "ddp_fork"]
    main(["fit", "--config", str(CONFIGS / "badnet.yaml"), *forked])
    assert capfd.readouterr().out.count("All figures in percent") == 1
    main(["cleanse", "--ckpt", "suspect.ckpt", *forked, *DISTIL])
    check(capfd.readouterr().out)
    # The other process is started with the command line of the first.
    words = ["cleanse", "--ckpt", "suspect.ckpt", *SOURCE, "--trainer.strategy", "ddp", *DISTIL]
    command = [sys.executable, "-m", "bdclean", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    check(done.stdout)


def test_an_untyped_argument_of_a_users_method_is_named(
    tiny_suspect: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("untyped.py").write_text(
        "from bdclean.cleansing import Cleanser\n\n\n"
        "class Mine(Cleanser):\n    def __init__(self, suspect, rate=0.1):\n        super().__init__(suspect)\n"
    )
    monkeypatch.syspath_prepend(str(Path.cwd()))
    with pytest.raises(SystemExit) as caught:
        main(["cleanse", "--ckpt", str(tiny_suspect), "--method", "untyped.Mine", *QUICK])
    assert caught.value.code == 2
    assert capsys.readouterr().err.strip() == (
        "bdclean: error: untyped.Mine: the argument suspect of its constructor has no type"
    )


def test_a_printed_configuration_is_completed_from_the_checkpoint(
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.save(build_network("resnet20", 7, 32).state_dict(), "theirs.pth")
    words = ["scan", "--ckpt", "theirs.pth", "--model.mean", "half", "--data.unlabeled", "procedural"]
    config = printed_config(words, capsys)
    assert (config["model"]["arch"], config["model"]["num_classes"]) == ("resnet20", 7)
    assert config["data"]["image_size"] == config["model"]["image_size"] == 32
