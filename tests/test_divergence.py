"""A diverging training restarts with a lower learning rate."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import bdclean
from bdclean.cleansing import Cleanser, StrongDistillCleanseModule
from bdclean.data.batch import Batch
from bdclean.modules import Classifier
from tests.strangers import Pooled

OPTIONS = {"epochs": 2, "enable_progress_bar": False, "accelerator": "cpu", "precision": "32-true"}


class Explodes(Cleanser):
    """Diverges in some epochs, whatever the learning rate."""

    def __init__(self, suspect: Classifier, epochs: set[int]) -> None:
        super().__init__(suspect)
        self.explosions = epochs
        self.rates: list[float] = []
        self.first: list[Tensor] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images = batch.images
        if batch_idx == 0:
            self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
            self.first.append(next(self.network.parameters()).detach().clone())
        loss = F.cross_entropy(self(images), self.teach(images).argmax(1))
        loss = loss * (torch.nan if self.current_epoch in self.explosions else 1)
        self.log_loss(loss, images)
        return loss

    def configure_optimizers(self) -> object:
        return self.sgd(0.4, 0.9, 0.0, lambda done: 1 - done)


def run(*epochs: int) -> Explodes:
    made: list[Explodes] = []

    def method(suspect: Classifier) -> Explodes:
        made.append(Explodes(suspect, set(epochs)))
        return made[0]

    torch.manual_seed(0)
    bdclean.cleanse(Pooled(), torch.rand(40, 3, 16, 16), method=method, **OPTIONS)
    return made[0]


def test_a_diverging_training_restarts(capsys: pytest.CaptureFixture[str]) -> None:
    cleanser = run(0, 2)
    # Epochs 1 and 2 are the second attempt, 3 and 4 the third, each with the initial weights and a full schedule.
    assert len(cleanser.rates) == 5
    assert [cleanser.rates[epoch] for epoch in (0, 1, 3)] == pytest.approx([0.4, 0.1, 0.025])
    assert torch.equal(cleanser.first[0], cleanser.first[1])
    assert torch.equal(cleanser.first[0], cleanser.first[3])
    assert not torch.equal(cleanser.first[3], cleanser.first[4])
    assert all(value.isfinite().all() for value in cleanser.network.state_dict().values())
    assert capsys.readouterr().out.count("training restarts at a quarter of the learning rate") == 2


def test_a_training_that_always_diverges_fails() -> None:
    with pytest.raises(bdclean.InputError, match=r"^method Explodes: its training diverged 7 times"):
        run(*range(20))


def test_the_gradient_norm_of_a_step_is_bounded() -> None:
    norms: list[tuple[float, float]] = []

    class Watched(StrongDistillCleanseModule):
        largest_gradient = 0.1  # type: ignore[assignment]

        def configure_gradient_clipping(self, *given: Any, **options: Any) -> None:
            before = self.norm()
            super().configure_gradient_clipping(*given, **options)
            norms.append((before, self.norm()))

        def norm(self) -> float:
            return float(torch.stack([value.grad.norm() for value in self.network.parameters()]).norm())  # type: ignore[union-attr]

    torch.manual_seed(0)
    model = Pooled()
    with torch.no_grad():
        model.head.weight.mul_(1000)
    bdclean.cleanse(model, torch.rand(40, 3, 16, 16), method=Watched, **OPTIONS)
    assert max(before for before, _ in norms) > 1
    assert all(after == pytest.approx(min(before, 0.1), rel=1e-3) for before, after in norms)
    # A user's own limit takes precedence.
    norms.clear()
    bdclean.cleanse(model, torch.rand(40, 3, 16, 16), method=Watched, gradient_clip_val=0.5, **OPTIONS)
    assert max(after for _, after in norms) == pytest.approx(0.5, rel=1e-3)
