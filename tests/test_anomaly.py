"""With anomaly detection, a diverging training ends with one line, wherever the gradient is computed."""

import warnings

import pytest
import torch
from torch import Tensor

import bdclean
from bdclean.cleansing import Cleanser
from bdclean.cli.main import main
from bdclean.data.batch import Batch
from bdclean.engine.anomaly import located
from tests.conftest import QUICK
from tests.strangers import Pooled


class Roots(Cleanser):
    """Takes the root of 0, whose gradient is infinite, and multiplies it by 0."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = (self(batch.images) * 0).sqrt().sum()
        self.log_loss(loss, batch.images)
        return loss

    def configure_optimizers(self) -> object:
        return self.sgd(0.1, 0.9, 0.0, lambda done: 1 - done)


@pytest.mark.usefixtures("tiny_shapes")
def test_a_diverging_training_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model.lr", "1e30", "--model.arch", "small_cnn", "--trainer.detect_anomaly", "true"]
    with pytest.raises(SystemExit) as caught:
        main(["fit", *QUICK, *options])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bdclean: error: --trainer.detect_anomaly true: Function '")
    assert "(attack.py, line" in line


def test_python_gets_an_input_error() -> None:
    torch.manual_seed(0)
    options = {"epochs": 1, "enable_progress_bar": False, "accelerator": "cpu", "precision": "32-true"}
    with pytest.raises(bdclean.InputError, match=r"^detect_anomaly true: .* called by training_step \(test_anomaly.py"):
        bdclean.cleanse(Pooled(), torch.rand(40, 3, 16, 16), method=Roots, detect_anomaly=True, **options)


def test_other_errors_and_warnings_are_not_changed() -> None:
    @located()
    def fails() -> None:
        warnings.warn("other", stacklevel=1)
        raise RuntimeError("other")

    with pytest.warns(UserWarning, match="other"), pytest.raises(RuntimeError, match="^other$"):
        fails()
