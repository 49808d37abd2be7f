"""Neural attention distillation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bdclean.cleansing.base import Supervision
from bdclean.cleansing.phases import TwoPhases
from bdclean.errors import InputError
from bdclean.modules import Classifier
from bdclean.networks import channel_axis, duplicate, find_features, frozen


def attention_map(features: Tensor, p: float) -> Tensor:
    """The attention map of a stage: A = sum over the channels of |F|^p, divided by its Euclidean norm.

    Args:
        features: (N, C, H, W), (N, H, W, C), or (N, tokens, C).
        p: Power.

    Returns:
        (N, positions), of norm 1.
    """
    # Maps of student and tutor differ by little: in half precision the gradient would have a wrong direction.
    exact = features.to(torch.promote_types(features.dtype, torch.float32))
    return F.normalize(exact.abs().pow(p).sum(channel_axis(features)).flatten(1), dim=1)


class NAD(TwoPhases):
    """Fine-tunes a copy of the suspect, and trains the suspect to match the copy's attention maps.

    L = cross-entropy(f(x), y) + sum over stages of beta_l mse(A_l(f), A_l(tutor)), with the attention maps A of each
    stage's output, and the fine-tuned copy as tutor.

    Source: Li, Lyu, Koren, Lyu, Li, Ma, "Neural Attention Distillation: Erasing Backdoor Triggers from Deep Neural
    Networks", ICLR 2021; betas and 100 epochs as in the comparison of Pang et al., CVPR 2023.

    Args:
        suspect: The network to cleanse. It is not changed.
        supervision: Targets of both phases: `teacher`, the suspect's predicted probabilities; `labels`, the true
            labels.
        betas: Weights of the last stages, one each; earlier stages are left out.
        p: Power of the attention maps, at least 1.
        first_phase_fraction: Share of the epochs in which the tutor is fine-tuned; the attention is trained in the
            others.
        first_phase_lr: Learning rate of the tutor's fine-tuning; by default `lr`.
        **options: Options of FineTune.

    Raises:
        InputError: If no stage has spatial feature maps, or an option is out of range.
    """

    relative_time = 1.2
    epochs = 110

    def __init__(
        self,
        suspect: Classifier,
        supervision: Supervision = "teacher",
        betas: Sequence[float] = (500.0, 1000.0, 1000.0),
        p: float = 2.0,
        first_phase_fraction: float = 0.1,
        first_phase_lr: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(suspect, supervision, first_phase_fraction, first_phase_lr, **options)
        for beta in betas:
            self.within("betas", beta, 0)
        self.within("p", p, 1)
        names = find_features(suspect, suspect.image_size)[-len(betas) :] if betas else []
        if not names:
            raise InputError("method", "NAD", "no stage of the network has spatial feature maps")
        self.stages = [name.removeprefix("network.") for name in names]
        self.betas = list(betas)[-len(names) :]
        self.p = p
        self.tutor: nn.Module = nn.Identity()

    def start_second_phase(self) -> None:
        self.tutor = frozen(duplicate(self.network))
        self.network.load_state_dict(self.teacher.state_dict())

    def attend(self, network: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits of images in [0, 1], and the attention map of each stage."""
        maps: dict[str, Tensor] = {}

        def watch(name: str) -> RemovableHandle:
            def keep(_module: nn.Module, _inputs: object, output: Any) -> None:
                features = output if isinstance(output, Tensor) else output[0]
                # Cloned, because the next layer may work in place. Of several calls the last one counts.
                maps[name] = attention_map(features.clone(), self.p)

            return network.get_submodule(name).register_forward_hook(keep)

        hooks = [watch(name) for name in self.stages]
        logits = network(self.normalize(images))
        for hook in hooks:
            hook.remove()
        return logits, [maps[name] for name in self.stages]

    def second_loss(self, images: Tensor, targets: Tensor) -> Tensor:
        logits, maps = self.attend(self.network, images)
        with torch.no_grad():
            _, wanted = self.attend(self.tutor, images)
        loss = F.cross_entropy(logits, targets)
        for beta, one, other in zip(self.betas, maps, wanted, strict=True):
            loss = loss + beta * F.mse_loss(one, other)
        return loss
