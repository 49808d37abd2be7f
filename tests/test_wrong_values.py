"""Less common wrong values: one line names the option and the value, and nothing is written."""

from pathlib import Path

import pytest

from bdclean.cli.main import main
from tests.conftest import CONFIGS, QUIET

METHODS = "no such class; there are ANP, BAN, BNP,"
ATTACKS = "no such class; there are ADBA, AdaptiveBlend,"
LOGGERS = "no such class; there are CometLogger, CSVLogger,"
MAPPING = "no such value; expected a mapping, {name: value}"
WRONG = {
    # Options of Lightning's Trainer
    "fit --trainer.profiler x": "--trainer.profiler x: ",
    "fit --trainer.plugins x": "--trainer.plugins x: ",
    "fit --trainer.plugins {}": "--trainer.plugins {}: no such class",
    "fit --trainer.callbacks x": "--trainer.callbacks x: no such class; there are BackboneFinetuning,",
    "fit --trainer.callbacks {}": "--trainer.callbacks {}: no such class; there are BackboneFinetuning,",
    "fit --trainer.callbacks [EarlyStopping,x]": "--trainer.callbacks x: no such class; there are",
    "fit --trainer.logger [3]": f"--trainer.logger 3: {LOGGERS}",
    "fit --trainer.logger {}": f"--trainer.logger {{}}: {LOGGERS}",
    "fit --trainer.strategy x": "--trainer.strategy x: You selected an invalid strategy name",
    "fit --trainer.precision 7": "--trainer.precision 7: no such value; expected 64, 32, 16,",
    "fit --trainer.precision transformer-engine": "--trainer.precision transformer-engine",
    "fit --trainer.accelerator gpux": "--trainer.accelerator gpux: ",
    "fit --trainer.devices 0": "--trainer.devices 0: ",
    "fit --trainer.num_nodes 0": "--trainer.num_nodes 0: ",
    "fit --trainer.max_time x": "--trainer.max_time x: ",
    "fit --trainer.max_epochs -2": "--trainer.max_epochs -2: ",
    "fit --trainer.limit_train_batches 1.5": "--trainer.limit_train_batches 1.5: ",
    "fit --trainer.val_check_interval 0": "--trainer.val_check_interval 0: must be above 0",
    "fit --trainer.val_check_interval 99999": "--trainer.val_check_interval 99999: must be less than or equal to",
    "fit --trainer.check_val_every_n_epoch 0": "--trainer.check_val_every_n_epoch 0: must be at least 1",
    "fit --trainer.accumulate_grad_batches 0": "--trainer.accumulate_grad_batches 0: must be at least 1",
    "fit --trainer.num_sanity_val_steps -7": "--trainer.num_sanity_val_steps -7: must be at least -1",
    "fit --trainer.gradient_clip_val -1": "--trainer.gradient_clip_val -1",
    "fit --trainer.gradient_clip_algorithm x": "--trainer.gradient_clip_algorithm x: ",
    "fit --trainer.barebones true": "--trainer.barebones True: ",
    "fit --trainer.callbacks ModelCheckpoint --trainer.enable_checkpointing false": "--trainer.enable_checkpointing Fa",
    "fit --trainer.callbacks LearningRateMonitor --trainer.callbacks.logging_interval x": (
        "--trainer.callbacks.logging_interval x: no such value; expected step, epoch or null"
    ),
    "fit --trainer.callbacks LearningRateMonitor --trainer.logger false": "--trainer.callbacks LearningRateMonitor: ",
    "fit --trainer 3": f"--trainer 3: {MAPPING}",
    # Images
    "fit --data null": f"--data null: {MAPPING}",
    "fit --data {seed:x}": f"--data {{seed:x}}: {MAPPING}",
    "fit --data.attack 3": f"--data.attack 3: {ATTACKS}",
    "fit --data.attack {}": f"--data.attack {{}}: {ATTACKS}",
    "fit --data.attack []": f"--data.attack []: {ATTACKS}",
    "fit --data.attack os.system": f"--data.attack os.system: {ATTACKS}",
    "fit --data.attack {class_path:os.system}": "--data.attack ",
    "fit --data.attack.class_path x": f"--data.attack x: {ATTACKS}",
    "fit --data.attack.init_args 3": f"--data.attack.init_args 3: {MAPPING}",
    "fit --data.attack.position [a,b]": "--data.attack.position ['a', 'b']: no such value; expected top-left,",
    "fit --data.attack.position [1,2,3]": (
        "--data.attack.position [1, 2, 3]: no such value; expected top-left, top-right, bottom-left, bottom-right, "
        "center or 2 numbers, [a, b]"
    ),
    "fit --data.batch_size 0": "--data.batch_size 0: must be at least 1",
    "fit --data.num_unlabeled -1": "--data.num_unlabeled -1: must be at least 1",
    "fit --data.image_size 999999": "--data.image_size 999999: must be at least 1 and at most 8192",
    "fit --data.crop_padding 33": "--data.crop_padding 33: must be at least 0 and at most 32",
    "fit --data.seed 99999999999999999999": "--data.seed 99999999999999999999: must be at least 0 and at most 92233720",
    # Networks
    "fit --model.lr=": "--model.lr '': no such value; expected a number",
    "fit --model.mean a": "--model.mean a: no such normalisation",
    "fit --model.num_classes 3": "--model.num_classes: the labelled images determine it",
    "fit --model.image_size 3": "--model.image_size: give --data.image_size instead",
    "cleanse --ckpt SUSPECT --model.image_size 0": "--model.image_size 0: must be at least 1",
    "cleanse --ckpt SUSPECT --model.image_size 999999": "--model.image_size 999999: must be at least 1 and at most 81",
    # Methods and detectors
    "cleanse --ckpt SUSPECT --method 3": f"--method 3: {METHODS}",
    "cleanse --ckpt SUSPECT --method {}": f"--method {{}}: {METHODS}",
    "cleanse --ckpt SUSPECT --method []": f"--method []: {METHODS}",
    "cleanse --ckpt SUSPECT --method=": f"--method '': {METHODS}",
    "cleanse --ckpt SUSPECT --method os.system": f"--method os.system: {METHODS}",
    "cleanse --ckpt SUSPECT --method bdclean.attacks.BadNets": f"--method bdclean.attacks.BadNets: {METHODS}",
    "cleanse --ckpt SUSPECT --config 3.yaml": f"--method 3: {METHODS}",
    "cleanse --ckpt SUSPECT --config class_3.yaml": f"--method 3: {METHODS}",
    "cleanse --ckpt SUSPECT --method Distill --method.temperature [1]": (
        "--method.temperature [1]: no such value; expected 2 numbers, [a, b]"
    ),
    "cleanse --ckpt SUSPECT --method Reinitialise --method.seed -1": "--method.seed -1: must be at least 0",
    "scan --ckpt SUSPECT --detector {}": "--detector {}: no such class; there are MaximumMargin,",
    # General options
    "fit --seed_everything x": "--seed_everything x: no such value; expected true or false or a whole number",
    "fit --seed_everything -1": "--seed_everything -1: must be from 0 to 4294967295",
    "fit --config [1]": f"--config [1]: {MAPPING}",
    "fit --config {": "--config {: not readable as YAML",
    "fit --config=": "--config '': no such file",
    "fit --config": "--config: needs a value",
    "fit --config tab.yaml": "--config tab.yaml: not readable as YAML",
    "fit --config list.yaml": "--config list.yaml: holds no options in the form `name: value`",
    "fit --config empty.yaml": "--config empty.yaml: holds no options in the form `name: value`",
    "fit --config null.yaml": f"--data null: {MAPPING}",
    "fit --config text.yaml": f"--data abc: {MAPPING}",
    "fit --config unknown.yaml": "--data.sede: no such option; did you mean --data.seed?",
    "fit --config type.yaml": "--data.seed x: no such value; expected a whole number",
    "fit --config .": "--config .: cannot be read (Is a directory)",
    # Benchmarks
    "benchmark --suspects {a:{}} --methods {Nope:{}}": f"--methods Nope: --method Nope: {METHODS}",
    "benchmark --suspects {a:{nope:3}} --methods {CLP:{}}": "--suspects a: --nope: no such option",
    "benchmark --suspects {a:{config:list.yaml}} --methods {CLP:{}}": "--suspects: list.yaml holds no options",
    "benchmark --suspects {a:{}} --methods {CLP:{}} --seeds [-1]": "--seeds -1: must be at least 0",
    "benchmark --suspects {a:{}} --methods {CLP:{}} --folder=": "--folder '': needs a name",
    "benchmark --suspects {a:{}} --methods {CLP:{}} --cell x": "--cell x: no such cell",
}
FILES = {
    "tab.yaml": "data:\n\tseed: 1\n",
    "list.yaml": "- 1\n",
    "empty.yaml": "",
    "null.yaml": "data: null\n",
    "text.yaml": "data: abc\n",
    "unknown.yaml": "data: {sede: 1}\n",
    "type.yaml": "data: {seed: x}\n",
    "3.yaml": "method: 3\n",
    "class_3.yaml": "method: {class_path: 3}\n",
}


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize("command", WRONG)
def test_a_wrong_value_is_named_in_one_line(
    command: str, tiny_suspect: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # With options in environment variables, some classes are not checked.
    monkeypatch.delenv("BDCLEAN_CLEANSE__SCAN")
    for name, content in FILES.items():
        Path(name).write_text(content)
    before = {str(path) for path in Path().rglob("*")}
    words = [str(tiny_suspect) if word == "SUSPECT" else word for word in command.split()]
    # YAML needs a space, which the words of a test do not have.
    words = [word.replace(":", ": ").replace("d: x", "d:x") if word.startswith("{") else word for word in words]
    quiet = [] if words[0] == "benchmark" or "--trainer" in words else QUIET
    with pytest.raises(SystemExit) as caught:
        main([words[0], *quiet, *words[1:]])
    (line,) = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2
    assert line.startswith(f"bdclean: error: {WRONG[command]}")
    assert {str(path) for path in Path().rglob("*")} == before


def test_early_stopping_names_a_missing_metric(capsys: pytest.CaptureFixture[str], tiny_shapes: None) -> None:
    options = ["--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "nope"]
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(CONFIGS / "badnet.yaml"), *QUIET, "--trainer.max_epochs", "1", *options])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bdclean: error: --trainer.callbacks.monitor nope: ")
