"""Each cleansing method against a slow, obvious reference of its formula, on tiny networks."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, distributions, nn
from torch.autograd.functional import jacobian
from torch.func import functional_call
from torch.nn.utils import vector_to_parameters
from torchvision.models import VisionTransformer

from bdclean import InputError, cleansing, tasks
from bdclean.cleansing import bnp, ftsam, mcr, nad, npd, sau
from bdclean.cleansing.phases import first_epochs
from bdclean.data import PoisonDataModule
from bdclean.data.batch import Batch
from bdclean.engine.quiet import quieten
from bdclean.engine.trainer import Trainer
from bdclean.modules import Classifier
from bdclean.networks import find_channels, find_features, scale
from bdclean.networks.cifar import NETWORKS, PreActBlock, ResNet
from bdclean.tables import markdown

NAMES = [name for name in cleansing.__all__ if name not in ("Cleanser", "Distill", "StrongDistillCleanseModule")]
"""Each method, without those that are another one with other settings."""
SIZE, CLASSES, MEAN, STD = 8, 4, 0.5, 0.25
close = torch.testing.assert_close


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(1)


class Toy(nn.Module):
    """Layers, and a function from images to logits."""

    def __init__(self, through: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.through = through
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, images: Tensor) -> Tensor:
        return self.through(self, images)


def tokens(patches: nn.Module, images: Tensor) -> Tensor:
    return patches(images).flatten(2).transpose(1, 2)


def attended(toy: Any, images: Tensor) -> Tensor:
    x = tokens(toy.patches, images)
    return toy.head((x + toy.attention(x, x, x)[0]).mean(1))


def pooled(*layers: nn.Module, width: int, classes: int = CLASSES) -> nn.Sequential:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def convnet() -> nn.Sequential:
    one = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU()
    two = nn.Conv2d(6, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
    return pooled(*one, *two, width=8)


def ladder() -> nn.Sequential:
    """A stem and two stages, smooth everywhere and without norms."""
    one, two = (nn.Conv2d(3, 4, 3, padding=1), nn.Tanh()), (nn.Conv2d(4, 5, 3, 2, 1), nn.Tanh())
    return pooled(*one, *two, nn.Conv2d(5, 6, 2, 2), nn.Tanh(), width=6)


def grouped() -> nn.Sequential:
    depthwise = nn.Conv2d(6, 12, 3, groups=6), nn.GroupNorm(2, 12), nn.ReLU()
    dense = nn.Conv2d(12, 5, 1), nn.ReLU(), nn.Flatten(), nn.Linear(80, 7), nn.ReLU(), nn.Linear(7, CLASSES)
    return nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6, eps=1.0), nn.ReLU(), *depthwise, *dense)


def three() -> dict[str, nn.Module]:
    return {"one": nn.Conv2d(3, 6, 3), "norm": nn.BatchNorm2d(6), "two": nn.Conv2d(6, 5, 3)}


TOYS: dict[str, Callable[[], nn.Module]] = {
    "resnet20": lambda: NETWORKS["resnet20"](CLASSES),
    "preact": lambda: ResNet(PreActBlock, (8, 16), (1, 2), CLASSES, stem_norm=False),
    "convnet": convnet,
    "ladder": ladder,
    "grouped": grouped,
    "vision transformer": lambda: VisionTransformer(SIZE, 4, 2, 2, 8, 12, num_classes=CLASSES),
    "encoder": lambda: Toy(
        lambda toy, x: toy.head(toy.blocks(tokens(toy.patches, x)).mean(1)),
        patches=nn.Conv2d(3, 8, 4, 4),
        blocks=nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), 2),
        head=nn.Linear(8, CLASSES),
    ),
    # Its attention layer outputs a tuple, and no block around it outputs a tensor.
    "bare attention": lambda: Toy(
        attended,
        patches=nn.Conv2d(3, 8, 4, 4),
        attention=nn.MultiheadAttention(8, 2, batch_first=True),
        head=nn.Linear(8, CLASSES),
    ),
    "one activation for two layers": lambda: Toy(
        lambda toy, x: toy.head(toy.act(toy.two(toy.act(toy.norm(toy.one(x))))).mean((2, 3))),
        **three(),
        act=nn.ReLU(inplace=True),
        head=nn.Linear(5, CLASSES),
    ),
    "in-place activation": lambda: Toy(
        lambda toy, x: toy.head(toy.two(toy.norm(toy.one(x)).relu_()).relu_().mean((2, 3))),
        **three(),
        head=nn.Linear(5, CLASSES),
    ),
    "unused layers": lambda: Toy(
        lambda toy, x: toy.head(toy.two(toy.norm(toy.one(x)).relu()).relu().mean((2, 3))),
        **three(),
        spare=nn.Linear(5, 5),
        head=nn.Linear(5, CLASSES),
        auxiliary=nn.Linear(5, CLASSES),
    ),
    "perceptron": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 9), nn.ReLU(), nn.Linear(9, CLASSES)),
    "head alone": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES)),
    "convolution as head": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ),
}
NO_BATCH_NORM = "ladder, encoder, vision transformer, bare attention, perceptron, head alone, convolution as head"
NO_POSITIONS = "perceptron, head alone, convolution as head"
TRANSFORMERS = "ladder, vision transformer, bare attention"
LACKING = {
    "BNP": {NO_BATCH_NORM: "batch norm"},
    **{name: {f"{NO_POSITIONS}, {TRANSFORMERS}": "neither batch norms nor dropout"} for name in ("FineTune", "MCR")},
    "NAD": {NO_POSITIONS: "no stage .* feature maps", TRANSFORMERS: "neither batch norms nor dropout"},
    "FinePrune": {"convolution as head": "not a linear layer"},
    "NPD": {"head alone": "no layer before the head"},
    **{
        name: {"head alone": "no convolution or linear layer before its head"}
        for name in ("ANP", "BAN", "CLP", "EP", "RNP", "TSBD", "UNIT")
    },
}
"""Networks that a method does not support, and its message."""
OPTIONS: dict[str, dict[str, Any]] = {
    "BTIDBF": {"mask_epochs": 1, "generator_epochs": 1},
    "NC": {"rounds": 2},
    "Reinitialise": {"supervision": "teacher"},
    "TSBD": {"unlearning_epochs": 2},
    "UNIT": {"bound_steps": 2},
}
"""Options of methods that would otherwise take long or use labels."""


def random_images(count: int = 12, size: int = SIZE, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


@torch.no_grad()
def stirred(network: nn.Module, seed: int = 0, amount: float = 0.3) -> nn.Module:
    """Weights and statistics as after training, instead of ones and zeros."""
    generator = torch.Generator().manual_seed(seed)
    for value in (*network.parameters(), *network.buffers()):
        if value.is_floating_point():
            value += amount * torch.randn(value.shape, generator=generator, dtype=value.dtype)
    for module in network.modules():
        if isinstance(getattr(module, "running_var", None), Tensor):
            module.running_var.abs_().add_(0.1)
    return network


def suspect_of(network: nn.Module, size: int = SIZE, classes: int = CLASSES) -> Classifier:
    return Classifier(network, classes, size, (MEAN,) * 3, (STD,) * 3)


def unit(method: type[Any], network: nn.Module, size: int = SIZE, classes: int = CLASSES, **options: object) -> Any:
    """A cleanser of a network, without a trainer, in double precision; its student is no longer the suspect."""
    cleanser = method(suspect_of(stirred(network), size, classes), **options).double()
    cleanser.network.to(memory_format=torch.contiguous_format)
    stirred(cleanser.network, seed=1, amount=0.2)
    cleanser.log_loss = lambda loss, images: None
    return cleanser


def normalised(images: Tensor) -> Tensor:
    return (images - MEAN) / STD


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy, by its definition."""
    if targets.ndim == 1:
        targets = torch.eye(logits.shape[1], dtype=logits.dtype)[targets]
    return -(targets * (logits.exp() / logits.exp().sum(1, keepdim=True)).log()).sum(1).mean()


def slopes(function: Callable[[Tensor], Tensor], place: Tensor, step: float = 1e-5) -> Tensor:
    """The gradient, by central differences."""
    found = torch.zeros_like(place)
    with torch.no_grad():
        for index in range(place.numel()):
            aside = torch.zeros_like(place)
            aside.view(-1)[index] = step
            found.view(-1)[index] = (function(place + aside) - function(place - aside)) / (2 * step)
    return found


def flat(values: Iterable[Tensor | None]) -> Tensor:
    return torch.cat([value.detach().flatten() for value in values if value is not None])


def gradients(network: nn.Module) -> Tensor:
    return flat(value.grad for value in network.parameters())


def with_weights(network: nn.Module, vector: Tensor) -> nn.Module:
    copied = copy.deepcopy(network)
    vector_to_parameters(vector, copied.parameters())
    return copied


def as_dict(network: nn.Module, vector: Tensor) -> dict[str, Tensor]:
    parameters = dict(network.named_parameters())
    pieces = vector.split([value.numel() for value in parameters.values()])
    return {name: piece.view_as(parameters[name]) for name, piece in zip(parameters, pieces, strict=True)}


def batches(*parts: Tensor, targets: Sequence[Tensor] | None = None) -> Callable[..., Iterator[tuple[Tensor, Tensor]]]:
    """A replacement for a cleanser's `images`."""
    answers = targets or [torch.zeros(len(part), dtype=torch.long) for part in parts]
    return lambda choosing=False: iter(list(zip(parts, answers, strict=True)))


def run(
    method: type[Any],
    suspect: Classifier,
    epochs: int = 2,
    watch: Callable[[Any], None] = lambda cleanser: None,
    **options: object,
) -> Any:
    """Run a method on 20 labelled images in batches of 10, with 2 selection images if it needs any."""
    quieten()
    pixels, labels = (255 * random_images(72)).byte().permute(0, 2, 3, 1).numpy(), torch.arange(72).numpy() % CLASSES
    np.savez("set.npz", x_train=pixels[:64], y_train=labels[:64], x_test=pixels[64:], y_test=labels[64:])
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    length = {"max_epochs": epochs if method.epochs else 0, "limit_val_batches": 0, "num_sanity_val_steps": 0}
    trainer = Trainer(accelerator="cpu", devices=1, **length, **dict.fromkeys(quiet, False))

    def make(suspect: Classifier) -> cleansing.Cleanser:
        cleanser: cleansing.Cleanser = method(suspect, **options)
        watch(cleanser)
        return cleanser

    torch.manual_seed(0)
    data = PoisonDataModule("set.npz", num_held_out=20, num_val=4, batch_size=10)
    return tasks.cleanse(trainer, suspect, data, make, scan=False)[0]


# All methods


def test_a_used_trainer_is_refused() -> None:
    suspect = suspect_of(TOYS["convnet"]())
    data = PoisonDataModule(None, unlabeled="procedural", num_unlabeled=10, image_size=SIZE)
    trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False)
    tasks.cleanse(trainer, suspect, data, cleansing.Distill, scan=False)
    with pytest.raises(InputError, match="this Trainer has trained already"):
        tasks.cleanse(trainer, suspect, data, cleansing.FineTune, scan=False)


@pytest.mark.parametrize("toy", TOYS)
@pytest.mark.parametrize("name", NAMES)
def test_every_method_cleanses_every_network_or_names_the_missing_layer(name: str, toy: str) -> None:
    suspect = suspect_of(stirred(TOYS[toy](), amount=0.02))
    before, seen = state(suspect.network), []

    def watch(cleanser: cleansing.Cleanser) -> None:
        step = cleanser.training_step
        cleanser.training_step = lambda batch, batch_idx: seen.append(batch) or step(batch, batch_idx)

    method = getattr(cleansing, name)
    lacks = [what for toys, what in LACKING.get(name, {}).items() if toy in toys.split(", ")]
    if lacks:
        with pytest.raises(InputError, match=f"method {name}: .*{lacks[0]}"):
            run(method, suspect)
    else:
        cleanser = run(method, suspect, watch=watch, **OPTIONS.get(name, {}))
        after = state(cleanser.network)
        assert [(key, value.shape) for key, value in after.items()] == [(k, v.shape) for k, v in before.items()]
        assert all(value.isfinite().all() for value in after.values())
        assert equal(state(cleanser.teacher), before)
        assert not any(value.grad is not None for value in cleanser.teacher.parameters())
        assert bool(seen) == bool(method.epochs)
        assert all(batch.labels is None for batch in seen)
    assert equal(state(suspect.network), before)
    assert all(value.requires_grad and value.grad is None for value in suspect.network.parameters())


def test_the_teacher_supervises_with_probabilities_in_eval_mode_without_a_gradient() -> None:
    network = nn.Sequential(*convnet()[:6], nn.Dropout(0.5), *convnet()[6:])
    cleanser = unit(cleansing.FineTune, network).train()
    images = random_images().double()
    same, targets = cleanser.supervise(Batch(images))
    assert same is images
    reference = copy.deepcopy(network).double().eval()(normalised(images))
    close(targets, reference.exp() / reference.exp().sum(1, keepdim=True))
    close(targets.sum(1), torch.ones(12).double())
    assert not targets.requires_grad


@pytest.mark.parametrize("labels", [False, True])
def test_score_counts_images_one_by_one_with_the_changes_and_keeps_the_mode(labels: bool) -> None:
    cleanser = unit(cleansing.FinePrune, convnet(), supervision="labels" if labels else "teacher").train()
    parts = [part.double() for part in random_images(60).split((7, 23, 30))]
    soft = noise(60, CLASSES, seed=1).softmax(1)
    targets = (soft.argmax(1) if labels else soft).split((7, 23, 30))
    cleanser.images = batches(*parts, targets=targets)
    # The result of the first process counts.
    cleanser._trainer = SimpleNamespace(strategy=SimpleNamespace(broadcast=lambda share: share - 1))
    change = {"network.8.weight": noise(CLASSES, 8), "network.4.running_var": cleanser.network[4].running_var + 1}
    before, other = state(cleanser.network), copy.deepcopy(cleanser.network).eval()
    other[8].weight.data, other[4].running_var = change["network.8.weight"], change["network.4.running_var"]
    tops = [int(other(normalised(image[None])).argmax()) for part in parts for image in part]
    hits = sum(top == int(wanted) for top, wanted in zip(tops, soft.argmax(1), strict=True))
    assert cleanser.score(change) == pytest.approx(100 * hits / 60 - 1)
    assert 0 < hits < 60
    assert cleanser.network.training
    assert equal(state(cleanser.network), before)


@pytest.mark.parametrize("tolerance", [0.0, 1.0, 2.0, 2.5, 30.0, 100.0])
@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_furthest_matches_a_linear_search(count: int, tolerance: float) -> None:
    cleanser = unit(cleansing.FinePrune, convnet())
    losses = torch.randint(0, 40, (count,), generator=torch.Generator().manual_seed(count)).div(4).tolist()
    cleanser.score = lambda changes: 90.0 - losses[changes["x"]] if changes else 90.0
    affordable = [level for level in range(count) if losses[level] <= tolerance]
    found = cleanser.furthest(range(count), lambda level: {"x": level}, tolerance)
    assert found == (affordable[-1] if affordable else None)


# The structure of networks


@pytest.mark.parametrize("toy", TOYS)
def test_channels_of_every_layer_before_the_head_are_silenced_by_their_scales(toy: str) -> None:
    network = stirred(TOYS[toy]()).eval()
    modules, called = dict(network.named_modules()), []
    hooks = [
        module.register_forward_hook(lambda *_args, name=name: called.append(name))
        for name, module in modules.items()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    images = random_images(3)
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    layers, before = find_channels(network, SIZE), state(network)
    assert [channels.layer for channels in layers] == called[:-1]
    for channels in layers:
        answers: list[Tensor] = []
        owner = modules[channels.norm or channels.layer]
        hook = owner.register_forward_hook(lambda *args, answers=answers: answers.append(args[-1].detach().clone()))
        factor = torch.ones(channels.count)
        factor[-1] = 0
        for biases in ((), [factor]):
            changed = scale(dict(network.named_parameters()), [channels], [factor], biases)
            functional_call(network, changed, (images,))
        hook.remove()
        answers = [answer if answer.ndim == 4 else answer.movedim(-1, 1) for answer in answers]
        shift = 0 if owner.bias is None else owner.bias[-1].item()
        close(answers[0][:, -1], torch.full_like(answers[0][:, -1], shift))
        assert (answers[1][:, -1] == 0).all()
        assert answers[0][:, 0].std() > 0
    assert equal(state(network), before)


def test_a_norm_belongs_to_the_layer_whose_output_it_takes() -> None:
    for toy, expected in (
        ("grouped", "0 1, 3 4, 6 None, 9 None"),
        (
            "preact",
            "conv1 layer1.0.bn1, layer1.0.conv1 layer1.0.bn2, layer1.0.conv2 None, layer2.0.conv1 layer2.0.bn2, "
            "layer2.0.conv2 None, layer2.0.shortcut.0 None, layer2.1.conv1 layer2.1.bn2, layer2.1.conv2 None",
        ),
    ):
        assert ", ".join(f"{found.layer} {found.norm}" for found in find_channels(TOYS[toy](), SIZE)) == expected


@pytest.mark.parametrize(
    ("toy", "names"),
    [
        ("ladder", ["3", "5"]),
        ("convnet", ["5"]),
        ("resnet20", ["layer1", "layer2", "layer3"]),
        ("perceptron", []),
    ],
)
def test_features_are_the_outputs_of_each_stage(toy: str, names: list[str]) -> None:
    assert find_features(TOYS[toy](), SIZE) == names


def test_the_head_is_the_last_layer_of_the_forward_pass() -> None:
    suspect = suspect_of(TOYS["unused layers"]())
    assert cleansing.FST(suspect).head == "network.head.weight"
    assert cleansing.FinePrune(suspect).head == "network.head"


# FineTune, FTSAM


def test_climb_against_a_loop() -> None:
    weights = {"a": torch.randn(3, 2).double(), "b": torch.randn(4).double(), "zero": torch.zeros(2).double()}
    slope = {name: torch.randn_like(value) for name, value in weights.items()}
    size = math.sqrt(
        sum(
            (abs(w) * g) ** 2
            for name in weights
            for w, g in zip(weights[name].flatten().tolist(), slope[name].flatten().tolist(), strict=True)
        )
    )
    found = ftsam.climb(weights, slope, 2.0)
    for name, value in weights.items():
        for index, w in enumerate(value.flatten().tolist()):
            expected = w + 2.0 * w**2 * slope[name].flatten()[index].item() / size
            assert found[name].flatten()[index].item() == pytest.approx(expected, abs=1e-12)
    step = torch.cat([((found[name] - value) / value.abs()).flatten() for name, value in weights.items()])
    assert step[step.isfinite()].norm().item() == pytest.approx(2.0)


def test_ftsam_leaves_the_gradient_of_the_perturbed_weights() -> None:
    cleanser = unit(cleansing.FTSAM, pooled(nn.Conv2d(3, 2, 3), nn.Tanh(), width=2, classes=3), 5, 3, rho=0.7)
    images = random_images(4, 5).double()
    targets = cleanser.teach(images).softmax(1)

    def loss(vector: Tensor) -> Tensor:
        return entropy(with_weights(cleanser.network, vector)(normalised(images)), targets)

    weights = flat(cleanser.network.parameters())
    slope = slopes(loss, weights)
    worst = weights + 0.7 * weights**2 * slope / (weights.abs() * slope).norm()
    found = cleanser.training_step(Batch(images), 0)
    found.backward()
    close(found.detach(), loss(worst).detach())
    close(gradients(cleanser.network), slopes(loss, worst), atol=1e-7, rtol=1e-5)
    assert (slopes(loss, worst) - slope).norm() > 1e-3


@pytest.mark.parametrize("momentum", [0.1, None])
def test_ftsam_updates_statistics_once_per_step_with_unperturbed_weights(momentum: float | None) -> None:
    network = convnet()
    network[1].momentum = network[4].momentum = momentum
    cleanser = unit(cleansing.FTSAM, network)
    reference = copy.deepcopy(cleanser.network)
    for seed in range(3):
        images = random_images(seed=seed).double()
        cleanser.training_step(Batch(images), seed)
        reference(normalised(images))
    assert reference[1].momentum == cleanser.network[1].momentum == momentum
    for place in (1, 4):
        close(cleanser.network[place].running_mean, reference[place].running_mean)
        close(cleanser.network[place].running_var, reference[place].running_var)


# FinePrune


def test_fineprune_prunes_the_least_active_units_permanently() -> None:
    # Tanh: a unit far below 0 is active too.
    network = stirred(nn.Sequential(*convnet()[:8], nn.Tanh(), convnet()[8]), amount=3)
    activity, weights, counts = torch.zeros(8), [], []

    def watch(cleanser: Any) -> None:
        def prepare() -> None:
            for images, _ in cleanser.images():
                activity.add_(copy.deepcopy(network).eval()[:9](normalised(images)).detach().abs().sum(0))
            type(cleanser).prepare(cleanser)

        def score(changes: dict[str, Tensor]) -> float:
            counts.append(int((changes["network.9.weight"] == 0).all(0).sum()) if changes else 0)
            return 100.0 - (10 if counts[-1] > 5 else 0)

        after_step = cleanser.on_train_batch_end
        cleanser.prepare, cleanser.score = prepare, score
        cleanser.on_train_batch_end = lambda *args: (after_step(*args), weights.append(cleanser.network[9].weight + 0))

    cleanser = run(cleansing.FinePrune, suspect_of(network), watch=watch, tolerance=9.0)
    gone = sorted(activity.argsort()[:5].tolist())
    assert max(counts) > 5
    assert len(weights) == 4
    for weight in (*weights, cleanser.network[9].weight):
        assert (weight == 0).all(0).nonzero().flatten().tolist() == gone
    assert "| inputs of 9 | 8 | 5 |" in markdown(cleanser.describe())


# Two phases: NAD, MCR


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 4, 4, 3), (2, 4, 4, 4), (2, 6, 3)])
@pytest.mark.parametrize("p", [1.0, 2.0, 3.5])
def test_attention_map_against_loops(shape: tuple[int, ...], p: float) -> None:
    features = noise(*shape)
    found = nad.attention_map(features, p)
    for number, one in enumerate(features):
        places = one if one.ndim == 2 else one.flatten(0, 1) if shape[-1] == 3 else one.flatten(1).T
        values = [sum(abs(value) ** p for value in place.tolist()) for place in places]
        size = math.sqrt(sum(value**2 for value in values))
        assert found[number].tolist() == pytest.approx([value / size for value in values])


def test_nad_adds_the_attention_distance_of_the_last_stages() -> None:
    network = ladder()
    cleanser = unit(cleansing.NAD, network, betas=(3.0, 5000.0, 300.0))
    cleanser.tutor = stirred(copy.deepcopy(cleanser.network), seed=5)
    images = random_images().double()
    targets = cleanser.teach(images).softmax(1)
    found = cleanser.second_loss(images, targets)
    expected = entropy(cleanser.network(normalised(images)), targets)
    for beta, end in ((5000.0, 4), (300.0, 6)):
        one, other = (
            nad.attention_map(part[:end](normalised(images)), 2.0) for part in (cleanser.network, cleanser.tutor)
        )
        distance = sum((a - b) ** 2 for a, b in zip(one.flatten(), other.flatten(), strict=True)) / one.numel()
        assert beta * distance > 1e-3
        expected = expected + beta * distance
    close(found, expected)
    found.backward()
    wanted = torch.autograd.grad(expected, list(cleanser.network.parameters()))
    close(gradients(cleanser.network), flat(wanted))
    assert all(value.grad is None for value in cleanser.tutor.parameters())


@pytest.mark.parametrize(
    ("first", "epochs", "expected"),
    [(0.1, 110, 11), (0.1, 2, 1), (0.9, 2, 1), (0.0, 5, 1), (1.0, 5, 4), (0.34, 10, 3)],
)
def test_the_second_phase_starts_after_whole_epochs(
    first: float, epochs: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleansing.NAD, "trainer", SimpleNamespace(max_epochs=epochs))
    assert first_epochs(unit(cleansing.NAD, ladder()), first) == expected
    monkeypatch.setattr(cleansing.NAD, "trainer", SimpleNamespace(max_epochs=1))
    with pytest.raises(InputError, match=r"max_epochs 1: NAD needs at least two"):
        first_epochs(unit(cleansing.NAD, ladder()), first)


@pytest.mark.parametrize("method", [cleansing.NAD, cleansing.MCR])
@pytest.mark.parametrize("first_lr", [None, 0.09])
def test_the_second_phase_restarts_the_optimiser_after_the_first(method: type[Any], first_lr: float | None) -> None:
    seen: dict[str, Any] = {"rates": [], "momenta": []}

    def watch(cleanser: Any) -> None:
        turn, step, finish = cleanser.start_second_phase, cleanser.training_step, cleanser.finish

        def switched() -> None:
            seen["tuned"] = state(cleanser.network)
            turn()
            seen["start"] = state(cleanser.network)

        def stepped(batch: Tensor, batch_idx: int) -> Tensor:
            (optimizer,) = cleanser.trainer.optimizers
            seen["rates"].append(optimizer.param_groups[0]["lr"])
            seen["momenta"].append(len(optimizer.state))
            return step(batch, batch_idx)

        def finished() -> None:
            seen["end"] = state(cleanser.network)
            finish()

        cleanser.start_second_phase, cleanser.training_step, cleanser.finish = switched, stepped, finished

    suspect = suspect_of(stirred(convnet()))
    cleanser = run(method, suspect, 4, watch, first_phase_fraction=0.5, first_phase_lr=first_lr, lr=0.03)
    before = state(suspect.network)
    moved = [name for name, value in suspect.network.named_parameters() if not torch.equal(seen["tuned"][name], value)]
    assert len(moved) == len(list(suspect.network.parameters()))
    steps = len(seen["rates"]) // 2
    shape = [(1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]
    expected = [(first_lr or 0.03) * value for value in shape] + [0.03 * value for value in shape]
    assert seen["rates"] == pytest.approx(expected)
    assert [place for place, count in enumerate(seen["momenta"]) if count == 0] == [0, steps]
    if method is cleansing.NAD:
        assert equal(seen["start"], before)
        assert equal(state(cleanser.tutor), seen["tuned"])
        assert not equal(seen["end"], before)
    else:
        for name, value in suspect.network.named_parameters():
            close(seen["start"][name], (value + seen["tuned"][name]) / 2)
            assert torch.equal(cleanser.ends[name][0], value)
            assert torch.equal(cleanser.ends[name][1], seen["tuned"][name])


def test_bezier_goes_from_end_to_end() -> None:
    start, bend, end = torch.tensor(2.0), torch.tensor(-5.0), torch.tensor(11.0)
    assert [mcr.bezier(start, bend, end, t).item() for t in (0.0, 1.0)] == [2.0, 11.0]
    assert mcr.bezier(start, bend, end, 0.5).item() == pytest.approx(2 / 4 - 5 / 2 + 11 / 4)
    assert mcr.bezier(start, (start + end) / 2, end, 0.3).item() == pytest.approx(2 + 0.3 * 9)


def curve(network: nn.Module, **options: object) -> tuple[Any, dict[str, tuple[Tensor, Tensor, Tensor]]]:
    """An MCR after its first phase, with the points of the curve of each parameter."""
    cleanser = unit(cleansing.MCR, network, **options)
    cleanser.optimizers = lambda: SimpleNamespace(param_groups=[{"weight_decay": 1.0}])
    ends = {name: value.detach().clone() for name, value in cleanser.network.named_parameters()}
    cleanser.start_second_phase()
    stirred(cleanser.network, seed=7, amount=0.1)
    starts, bends = dict(cleanser.teacher.named_parameters()), dict(cleanser.network.named_parameters())
    return cleanser, {name: (starts[name], bends[name].detach().clone(), ends[name]) for name in ends}


def at(network: nn.Module, points: dict[str, tuple[Tensor, Tensor, Tensor]], t: float) -> nn.Module:
    copied = copy.deepcopy(network)
    for name, value in copied.named_parameters():
        start, bend, end = points[name]
        value.data = (1 - t) * (1 - t) * start + 2 * t * (1 - t) * bend + t * t * end
    return copied


def test_mcr_trains_the_bend_by_the_loss_at_a_point_of_the_curve() -> None:
    cleanser, points = curve(ladder(), weight_decay=0.3)
    images = random_images().double()
    targets = cleanser.teach(images).softmax(1)
    torch.manual_seed(4)
    t = torch.rand(()).item()
    torch.manual_seed(4)
    found = cleanser.second_loss(images, targets)
    found.backward()
    there = at(cleanser.network, points, t)
    there.zero_grad()
    size = sum(value.square().sum() for value in there.parameters())
    expected = entropy(there(normalised(images)), targets) + 0.3 / 2 * size
    expected.backward()
    close(found, expected)
    close(gradients(cleanser.network), 2 * t * (1 - t) * gradients(there))


@torch.no_grad()
def measured(network: nn.Sequential, parts: Sequence[Tensor]) -> dict[str, Tensor]:
    """Means over batches of each batch's statistics, layer by layer."""
    found: dict[str, list[Tensor]] = {}
    for part in parts:
        x = normalised(part)
        for place, layer in enumerate(network):
            if isinstance(layer, nn.BatchNorm2d):
                values = x.transpose(0, 1).flatten(1)
                found.setdefault(f"{place}.running_mean", []).append(values.mean(1))
                found.setdefault(f"{place}.running_var", []).append(values.var(1, unbiased=True))
                middle, spread = values.mean(1), values.var(1, unbiased=False)
                x = (x - middle.view(1, -1, 1, 1)) / (spread.view(1, -1, 1, 1) + layer.eps).sqrt()
                x = x * layer.weight.view(1, -1, 1, 1) + layer.bias.view(1, -1, 1, 1)
            else:
                x = layer(x)
    return {name: torch.stack(values).mean(0) for name, values in found.items()}


@pytest.mark.parametrize(
    ("options", "expected"), [({"tolerance": 10.3}, 0.25), ({"tolerance": 1.0}, None), ({"t": 0.8}, 0.8)]
)
def test_mcr_chooses_the_tolerable_point_nearest_to_the_middle(
    options: dict[str, float], expected: float | None
) -> None:
    cleanser, points = curve(convnet(), **options)
    parts = [part.double() for part in random_images(20).split((7, 6, 7))]
    cleanser.images = batches(*parts)
    first = {0.05 * step: at(convnet(), points, 0.05 * step)[0].weight for step in range(1, 11)}

    def score(changes: dict[str, Tensor]) -> float:
        if not changes:
            assert equal(state(cleanser.network), state(cleanser.teacher))
            return 100.0
        (t,) = (t for t, value in first.items() if torch.allclose(value, changes["network.0.weight"]))
        assert {name.removeprefix("network.") for name in changes} == set(points) | set(
            measured(cleanser.network, parts)
        )
        return 100 - 40 * t

    cleanser.score = score
    momenta = [module.momentum for module in cleanser.network.modules() if isinstance(module, nn.BatchNorm2d)]
    cleanser.finish()
    assert cleanser.t == (None if expected is None else pytest.approx(expected))
    wanted = state(cleanser.teacher)
    if expected is not None:
        there = at(cleanser.teacher, points, expected)
        wanted |= {name: value.data for name, value in there.named_parameters()} | measured(there, parts)
        assert measured(there, parts).keys() == {f"{p}.running_{kind}" for p in (1, 4) for kind in ("mean", "var")}
    close(state(cleanser.network), wanted)
    assert momenta == [m.momentum for m in cleanser.network.modules() if isinstance(m, nn.BatchNorm2d)]


# Pruning: ANP, RNP, CLP, BNP


def test_anp_weights_clean_and_worst_loss_of_masked_networks() -> None:
    network = pooled(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 3, 2), width=3)
    cleanser = unit(cleansing.ANP, network, eps=0.3, alpha=0.4)
    images, masks = random_images().double(), torch.rand(7, generator=torch.Generator().manual_seed(2)).double()
    for mask, values in zip(cleanser.masks, masks.split((4, 3)), strict=True):
        mask.data = values.clone()
    targets, calls, loss = cleanser.teach(images).softmax(1), [], cleanser.loss

    def by_hand(factors: Tensor) -> Tensor:
        copied = copy.deepcopy(cleanser.network).train()
        with torch.no_grad():
            for owner, rows, shifts in zip((1, 3), factors[:7].split((4, 3)), factors[7:].split((4, 3)), strict=True):
                for channel in range(len(rows)):
                    copied[owner].weight[channel] *= rows[channel]
                    copied[owner].bias[channel] *= shifts[channel]
        return entropy(copied(normalised(images)), targets).detach()

    def spy(images: Tensor, targets: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
        ones = [torch.ones(4).double(), torch.ones(3).double()]
        calls.append(torch.cat([*weights, *(biases or ones)]).detach().clone())
        return loss(images, targets, weights, biases)

    cleanser.loss = spy
    found = cleanser.training_step(Batch(images), 0)
    found.backward()
    start, worst, clean = calls
    ones = torch.ones(7).double()
    middle = torch.cat([masks, ones])
    assert torch.equal(clean, middle)
    assert (start - middle).abs().max() <= 0.3
    assert (worst - middle).abs().max() <= 0.3 + 1e-12
    close(worst - middle, (start - middle + 0.3 * slopes(by_hand, start).sign()).clamp(-0.3, 0.3))
    close(found.detach(), 0.4 * by_hand(clean) + 0.6 * by_hand(worst))
    noise = worst - middle

    def outer(masks: Tensor) -> Tensor:
        middle = torch.cat([masks, ones])
        return 0.4 * by_hand(middle) + 0.6 * by_hand(middle + noise)

    close(flat(mask.grad for mask in cleanser.masks), slopes(outer, masks), atol=1e-7, rtol=1e-5)
    assert all(value.grad is None for value in cleanser.network.parameters())


@pytest.mark.parametrize("method", [cleansing.ANP, cleansing.RNP])
def test_masks_stay_between_0_and_1(method: type[Any]) -> None:
    cleanser = unit(method, convnet())
    values = torch.tensor([-0.3, 0.0, 0.4, 1.0, 1.7, -9.0]).double()
    cleanser.masks[0].data = values
    cleanser.unlearning = False
    cleanser.on_train_batch_end(None, random_images(), 0)
    assert cleanser.masks[0].tolist() == [0, 0, pytest.approx(0.4), 1, 1, 0]


@pytest.mark.parametrize("method", [cleansing.ANP, cleansing.RNP])
def test_channels_with_small_masks_are_pruned_from_the_original_suspect(method: type[Any]) -> None:
    suspect = suspect_of(stirred(convnet()))
    cleanser = run(method, suspect, 8, threshold=0.999)
    expected = state(suspect.network)
    for mask, name in zip(cleanser.masks, ("1.weight", "4.weight"), strict=True):
        expected[name][mask < 0.999] = 0
    assert any((mask < 0.999).any() for mask in cleanser.masks)
    close(state(cleanser.network), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("tolerance", "wanted"), [(0.5, 0), (2.0, 2), (3.0, 3), (10.0, 3), (11.0, 11), (50.0, 12)])
def test_the_threshold_is_the_highest_tolerable_multiple(tolerance: float, wanted: int) -> None:
    cleanser = unit(cleansing.ANP, convnet(), tolerance=tolerance)
    values = [0.0, 0.12, 0.31, 0.6, 1.0, 1.0, *[0.47] * 8]
    cleanser.masks[0].data, cleanser.masks[1].data = torch.tensor(values).double().split((6, 8))
    scales = cleanser.network[1].weight, cleanser.network[4].weight

    def score(changes: dict[str, Tensor]) -> float:
        changed = [changes[f"network.{place}.weight"] for place in (1, 4)] if changes else scales
        return 100.0 - sum(int((value == 0).sum()) for value in changed)

    cleanser.score = score
    cleanser.finish()
    gone = sorted(range(14), key=values.__getitem__)[:wanted]
    assert (flat(scales) == 0).nonzero().flatten().tolist() == sorted(gone)
    assert sum(int(which.sum()) for which in cleanser.pruned) == wanted


def test_rnp_unlearns_with_weights_and_recovers_with_masks() -> None:
    seen: list[tuple[bool, Tensor, Tensor, Tensor]] = []

    def watch(cleanser: Any) -> None:
        after_step = cleanser.on_train_batch_end

        def note(outputs: Any, batch: Tensor, index: int) -> None:
            after_step(outputs, batch, index)
            weights = flat(cleanser.network.parameters())
            masks = flat(cleanser.masks)
            logits = copy.deepcopy(cleanser.network)(normalised(random_images(72)))
            loss = entropy(logits, torch.arange(72) % CLASSES).detach()
            seen.append((cleanser.unlearning, weights, masks, loss))

        cleanser.on_train_batch_end = note

    suspect = suspect_of(stirred(convnet()))
    cleanser = run(cleansing.RNP, suspect, 4, watch, supervision="labels", stop_accuracy=0.0, lr=0.05)
    assert [unlearning for unlearning, *_ in seen] == [True] * 4 + [False] * 4
    weights, masks, losses = ([row[place] for row in seen] for place in (1, 2, 3))
    assert all((mask == 1).all() for mask in masks[:4])
    assert all(not torch.equal(*pair) for pair in pairwise(weights[:4]))
    assert all(torch.equal(value, weights[3]) for value in weights[4:])
    assert not torch.equal(masks[-1], masks[3])
    assert losses[3] > losses[0]
    assert equal(state(cleanser.teacher), state(suspect.network))
    early: list[bool] = []
    run(
        cleansing.RNP,
        suspect,
        4,
        lambda c: setattr(c, "on_train_epoch_start", lambda: early.append(c.unlearning)),
        stop_accuracy=100.0,
    )
    assert early == [True, False, False, False]


def test_rnp_ascends_in_unlearning_and_scales_the_loss_in_recovering() -> None:
    cleanser = unit(cleansing.RNP, ladder(), alpha=0.3)
    images = random_images().double()
    loss = entropy(cleanser.network(normalised(images)), cleanser.teach(images).softmax(1))
    close(cleanser.training_step(Batch(images), 0), -loss)
    cleanser.unlearning = False
    close(cleanser.training_step(Batch(images), 0), 0.3 * loss)
    assert cleanser.counts.tolist()[1] == 24


def test_rnp_measures_accuracy_over_whole_steps() -> None:
    cleanser = unit(cleansing.RNP, ladder(), stop_accuracy=50.0)
    strategy = SimpleNamespace(reduce=lambda counts, reduce_op: counts)
    for step, right, unlearning in ((0, 0, True), (1, 11, True), (1, 0, True), (2, 9, False)):
        cleanser._trainer = SimpleNamespace(global_step=step, strategy=strategy)
        cleanser.counts = cleanser.counts + torch.tensor([right, 10.0])
        cleanser.on_train_batch_end(None, None, 0)
        assert cleanser.unlearning == unlearning


def far(values: Sequence[float], u: float) -> list[bool]:
    mean = sum(values) / len(values)
    std = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return [value > mean + u * std for value in values]


def test_clp_prunes_scale_and_shift_of_the_channels_that_amplify() -> None:
    network = stirred(grouped())
    cleanser = cleansing.CLP(suspect_of(network), u=0.5)
    cleanser.prepare()
    expected = state(network)
    for place, norm in ((0, 1), (3, 4), (6, None), (9, None)):
        owner = network[place if norm is None else norm]
        bounds = []
        for channel, weight in enumerate(network[place].weight.detach()):
            bound = float(torch.linalg.svdvals(weight.reshape(len(weight), -1))[0])
            if norm is not None:
                bound *= abs(float(owner.weight[channel].detach()))
            if norm == 1:
                bound /= math.sqrt(float(owner.running_var[channel]) + owner.eps)
            bounds.append(bound)
        gone = torch.tensor(far(bounds, 0.5))
        assert gone.any()
        for kind in ("weight", "bias"):
            expected[f"{place if norm is None else norm}.{kind}"][gone] = 0
    close(state(cleanser.network), expected, rtol=0, atol=0)


def test_gaussian_divergence_against_torch_and_an_integral() -> None:
    mean, other_mean = torch.randn(2, 6).double()
    var, other_var = torch.rand(2, 6).double() + 0.2
    found = bnp.gaussian_divergence(mean, var, other_mean, other_var)
    one, other = distributions.Normal(mean, var.sqrt()), distributions.Normal(other_mean, other_var.sqrt())
    close(found, distributions.kl_divergence(one, other))
    x = torch.linspace(-15, 15, 20001).double()[:, None]
    integral = torch.trapezoid(one.log_prob(x).exp() * (one.log_prob(x) - other.log_prob(x)), x, dim=0)
    close(found, integral)


def test_bnp_compares_all_clean_activations_with_the_learned_statistics() -> None:
    network = stirred(pooled(*convnet()[:6], nn.Conv2d(8, 9, 1), nn.BatchNorm2d(9), width=9), amount=0.6)
    cleanser = cleansing.BNP(suspect_of(network), u=0.8)
    parts = random_images(40).split((17, 20, 3))
    cleanser.images = batches(*parts)
    cleanser.prepare()
    expected, reference = state(network), copy.deepcopy(network).eval()
    for place in (1, 4, 7):
        norm = reference[place]
        values = reference[:place](normalised(torch.cat(parts))).detach().transpose(0, 1).flatten(1)
        learned = distributions.Normal(norm.running_mean, (norm.running_var + norm.eps).sqrt())
        clean = distributions.Normal(values.mean(1), (values.var(1, unbiased=False) + norm.eps).sqrt())
        gone = torch.tensor(far(distributions.kl_divergence(clean, learned).tolist(), 0.8))
        assert gone.any()
        expected[f"{place}.weight"][gone] = 0
    close(state(cleanser.network), expected, rtol=0, atol=0)


# FST, distillation


def test_fst_pushes_a_new_head_away_from_the_old_one_and_keeps_its_norm() -> None:
    network = stirred(convnet())
    old, norms = network[8].weight.detach().clone(), []
    cleanser = cleansing.FST(suspect_of(network), alpha=0.3)
    changed = {name for name, value in state(cleanser.network).items() if not torch.equal(value, state(network)[name])}
    assert changed == {"8.weight"}
    assert cleanser.network[8].weight.abs().max() <= 1 / math.sqrt(8)
    assert (cleanser.network[8].weight != old).all()
    cleanser.log_loss = lambda loss, images: None
    images, reference = random_images(), copy.deepcopy(cleanser.network)
    found = cleanser.training_step(Batch(images), 0)
    found.backward()
    plain = entropy(reference(normalised(images)), cleanser.teach(images).softmax(1))
    plain.backward()
    likeness = sum(a * b for a, b in zip(reference[8].weight.flatten(), old.flatten(), strict=True))
    close(found, plain + 0.3 * likeness)
    reference[8].weight.grad += 0.3 * old
    close(gradients(cleanser.network), gradients(reference), atol=1e-6, rtol=1e-4)

    def watch(cleanser: Any) -> None:
        after_step = cleanser.on_train_batch_end
        cleanser.on_train_batch_end = lambda *args: (after_step(*args), norms.append(cleanser.network[8].weight.norm()))

    run(cleansing.FST, suspect_of(network), watch=watch, lr=0.1)
    assert len(norms) == 4
    assert [norm.item() for norm in norms] == pytest.approx([old.norm().item()] * 4, rel=1e-5)


@pytest.mark.parametrize(
    ("method", "options", "temperatures"),
    [
        (cleansing.DistillCleanseModule, {"temperature": (1.0, 3.0)}, (1.0, 1.5, 2.0, 2.5, 3.0)),
        (cleansing.ScanDistill, {}, (1.0,) * 5),
    ],
)
def test_the_temperature_rises_unless_the_default_says_otherwise(
    method: type[cleansing.DistillCleanseModule],
    options: dict[str, tuple[float, float]],
    temperatures: tuple[float, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cleansing.DistillCleanseModule, "trainer", SimpleNamespace(max_epochs=5))
    cleanser = unit(method, ladder(), **options)
    images = random_images().double()
    for epoch, temperature in enumerate(temperatures):
        monkeypatch.setattr(cleansing.DistillCleanseModule, "current_epoch", epoch)
        student, teacher = (
            distributions.Categorical(logits=network(normalised(images)) / temperature)
            for network in (cleanser.network, cleanser.teacher)
        )
        expected = distributions.kl_divergence(teacher, student).mean()
        close(cleanser.training_step(Batch(images), 0), expected)


def test_each_control_omits_one_half() -> None:
    suspect = suspect_of(stirred(convnet()))
    assert equal(state(cleansing.Distill(suspect).network), state(suspect.network))
    control = cleansing.Reinitialise(suspect, ratios=[0.0, 1.0, 0.0])
    assert control.supervision == "labels"
    changed = [name for name, value in state(control.network).items() if not torch.equal(value, state(suspect)[name])]
    assert changed == ["3.weight"]
    control.log_loss = lambda loss, images: None
    images, labels = random_images(), torch.arange(12) % CLASSES
    expected = entropy(copy.deepcopy(control.network)(normalised(images)), labels)
    close(control.training_step(Batch(images, labels, labels), 0), expected)


@pytest.mark.parametrize("method", [cleansing.ANP, cleansing.RNP])
def test_masks_are_learned_without_dropout(method: type[cleansing.Cleanser]) -> None:
    cleanser = unit(method, nn.Sequential(*convnet()[:6], nn.Dropout(0.5), *convnet()[6:]))
    for mode in (True, False):
        network: Any = cleanser.train(mode).network
        assert (network.training, network[1].training, network[6].training) == (mode, mode, False)


# IBAU, SAU, NPD


def test_ibau_names_the_option_if_there_is_no_second_derivative() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 2), nn.Hardsigmoid(), nn.Flatten(), nn.Linear(8, 3))
    cleanser = unit(cleansing.IBAU, network, 3, 3)
    images = random_images(4, 3).double()
    cleanser.perturbation, cleanser.example = (
        0.01 * torch.ones(1, 3, 3, 3).double(),
        (images, torch.eye(3)[[0, 1, 2, 0]]),
    )
    with pytest.raises(InputError, match="rounds 5: a layer of the network .*; 0 needs none"):
        cleanser.training_step(Batch(images), 0)


@pytest.mark.parametrize(("rounds", "eps"), [(0, 100.0), (1, 100.0), (5, 100.0), (5, 0.5)])
def test_ibau_follows_the_gradient_through_its_perturbation(rounds: int, eps: float) -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))
    options = {"rounds": rounds, "share": 0.5, "penalty": 0.05, "map_step": 0.4, "inner_lr": 2.0, "eps": eps}
    cleanser = unit(cleansing.IBAU, network, 3, 3, **options).train()
    assert not cleanser.network.training
    first, second, batch = (random_images(count, 3, seed).double() for seed, count in enumerate((3, 2, 4)))
    answers = [cleanser.teach(images).softmax(1) for images in (first, second, batch)]
    cleanser.images = batches(first, second, targets=answers[:2])
    weights = flat(cleanser.network.parameters())

    def logits(images: Tensor, w: Tensor) -> Tensor:
        return functional_call(cleanser.network, as_dict(cleanser.network, w), (normalised(images),))

    def inner(d: Tensor, w: Tensor, images: Tensor, targets: Tensor) -> Tensor:
        return 0.05 * (d**2).sum() - entropy(logits(images + d, w), targets)

    d = torch.zeros(3, 3, 3).double()
    for images in (first, second):
        own = logits(images, weights).argmax(1)
        d = d - 2.0 * slopes(lambda place, x=images, y=own: inner(place, weights, x, y), d)
        d = d * min(1.0, eps * 3 / 32 / float(d.norm()))
    cleanser.on_train_epoch_start()
    close(cleanser.perturbation.squeeze(0), d, atol=1e-6, rtol=1e-5)
    d = cleanser.perturbation.detach().squeeze(0).clone()

    def outer(d: Tensor, w: Tensor) -> Tensor:
        return entropy(logits(torch.cat([batch[:2] + d, batch[2:]]), w), answers[2])

    def mapped(d: Tensor, w: Tensor) -> Tensor:
        there = d if d.requires_grad else d.clone().requires_grad_()
        return d - 0.4 * torch.autograd.grad(inner(there, w, first, answers[0]), there, create_graph=True)[0]

    slope_d, slope_w = jacobian(outer, (d, weights))
    by_d, by_w = jacobian(mapped, (d, weights))
    by_d, by_w, v = by_d.reshape(27, 27), by_w.reshape(27, -1), torch.zeros(27).double()
    for _ in range(rounds):
        v = by_d.T @ v + slope_d.flatten()
    found = cleanser.training_step(Batch(batch), 0)
    found.backward()
    close(found.detach(), outer(d, weights))
    close(gradients(cleanser.network), slope_w + by_w.T @ v)
    assert rounds == 0 or (by_w.T @ v).norm() > 1e-6


def test_js_divergence_against_torch() -> None:
    one, other = 3 * noise(40, 4), 3 * noise(40, 4, seed=1)
    p, q = (distributions.Categorical(logits=logits) for logits in (one, other))
    middle = distributions.Categorical(probs=(p.probs + q.probs) / 2)
    expected = (distributions.kl_divergence(p, middle) + distributions.kl_divergence(q, middle)) / 2
    close(sau.js_divergence(one, other), expected, atol=1e-6, rtol=1e-5)
    assert sau.js_divergence(one, one).abs().max() < 1e-9


def test_unlearning_loss_against_a_loop() -> None:
    logits, suspect = 3 * noise(40, 4), 3 * noise(40, 4, seed=1)
    clean, classes = torch.arange(40) % 4, torch.arange(40) // 4 % 4
    total, counted = 0.0, 0
    for place, answers in enumerate(suspect.tolist()):
        wrong = answers.index(max(answers))
        if wrong in (int(clean[place]), int(classes[place])):
            continue
        weights = [math.exp(value) for value in logits[place].tolist()]
        total -= math.log(1 - weights[wrong] / sum(weights))
        counted += 1
    assert 0 < counted < 40
    assert sau.unlearning_loss(logits, suspect, clean, classes).item() == pytest.approx(total / 40)


def test_unlearning_is_steepest_where_the_wrong_class_is_certain() -> None:
    logits = torch.tensor([[40.0, 0.0, 1.0]], requires_grad=True)
    torch.autograd.backward(sau.unlearning_loss(logits, logits, torch.tensor([1]), torch.tensor([1])))
    assert logits.grad is not None
    close(logits.grad, torch.tensor([[1.0, -1 / (1 + math.e), -math.e / (1 + math.e)]]), atol=1e-6, rtol=1e-6)


def sau_inner(cleanser: Any, images: Tensor, clean: Sequence[Tensor], classes: Tensor) -> Tensor:
    """The objective of the perturbation, image by image."""
    answers = [network(normalised(images)) for network in (cleanser.network, cleanser.teacher)]
    adversarial, shared = [], []
    for place, label in enumerate(classes.tolist()):
        tops = [int(logits[place].argmax()) for logits in answers]
        fooled = [top != int(own[place]) for top, own in zip(tops, clean, strict=True)]
        adversarial += [logits[place].log_softmax(0)[label] for logits, f in zip(answers, fooled, strict=True) if not f]
        if not (all(fooled) and tops[0] == tops[1]):
            p, q = (logits[place].softmax(0) for logits in answers)
            shared.append((((p / ((p + q) / 2)).log() * p).sum() + ((q / ((p + q) / 2)).log() * q).sum()) / 2)
    zero = 0 * answers[0].sum()
    size = len(images)
    return (
        cleanser.adversarial_weight * sum(adversarial, zero) / (2 * size)
        + cleanser.shared_weight * sum(shared, zero) / size
    )


@pytest.mark.parametrize("weight", [0.01, 2.0])
def test_sau_perturbs_by_sign_steps_and_unlearns(weight: float) -> None:
    cleanser = unit(cleansing.SAU, convnet(), eps=0.15, steps=3, adversarial_weight=weight, unlearn_weight=0.7).train()
    images = random_images(24).double()
    targets = cleanser.teach(images).softmax(1)
    classes = targets.argmax(1)
    clean = [network(normalised(images)).argmax(1) for network in (cleanser.network, cleanser.teacher)]
    d = torch.full_like(images, 0.15)
    for _ in range(3):
        d.requires_grad_()
        (slope,) = torch.autograd.grad(sau_inner(cleanser, images + d, clean, classes), d)
        d = (d.detach() - 0.15 * slope.sign()).clamp(-0.15, 0.15)
    found = cleanser.perturb(images, (clean[0], clean[1]), classes)
    close(found, d)
    assert found.abs().max() <= 0.15
    assert all(value.grad is None for value in cleanser.network.parameters())
    before = state(cleanser.network)
    loss = cleanser.training_step(Batch(images), 0)
    wrong = sau.unlearning_loss(
        cleanser.network(normalised(images + d)), cleanser.teacher(normalised(images + d)), clean[1], classes
    )
    close(loss, entropy(cleanser.network(normalised(images)), targets) + 0.7 * wrong)
    assert equal(state(cleanser.network), before)


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(5, 4, 3, 2, 1), nn.Conv2d(5, 4, 2, dilation=2, bias=False), nn.Conv2d(5, 4, 3, 1, 2), nn.Linear(5, 4)],
)
def test_polarize_is_a_map_of_channels_before_the_layer(layer: Any) -> None:
    stirred(layer.double())
    polarizer = noise(5, 5)
    features = noise(2, 5, 6, 6)
    polarized = torch.zeros_like(features)
    for into in range(5):
        for out_of in range(5):
            polarized[:, into] += polarizer[into, out_of] * features[:, out_of]
    if isinstance(layer, nn.Linear):
        features, polarized = features.movedim(1, -1), polarized.movedim(1, -1)
    folded = functional_call(layer, {"weight": npd.polarize(layer.weight, polarizer)}, (features,))
    close(folded, layer(polarized))


def test_npd_filters_before_the_penultimate_layer_and_is_merged_into_it() -> None:
    network = pooled(*ladder()[:6], nn.Conv2d(6, 7, 1), nn.Tanh(), width=7).double()
    cleanser = unit(cleansing.NPD, network, eps=2.0, step_size=0.2, adversarial_weight=0.3).train()
    assert cleanser.place == "network.4.weight"
    images = random_images().double()
    close(cleanser.polarized(images), cleanser(images))
    polarizer = nn.Conv2d(5, 5, 1, bias=False).double()
    with torch.no_grad():
        cleanser.polarizer += 0.3 * noise(5, 5)
        polarizer.weight.copy_(cleanser.polarizer[:, :, None, None])
    explicit = nn.Sequential(*copy.deepcopy(cleanser.network[:4]), polarizer, *copy.deepcopy(cleanser.network[4:]))

    targets = cleanser.teach(images).softmax(1)
    classes, logits = targets.argmax(1), explicit(normalised(images))
    close(cleanser.polarized(images), logits)
    wanted = torch.stack(
        [row.argsort()[-1] if row.argmax() != c else row.argsort()[-2] for row, c in zip(logits, classes, strict=True)]
    )
    adversarial = images.clone()
    for _ in range(2):
        adversarial.requires_grad_()
        (slope,) = torch.autograd.grad(entropy(explicit(normalised(adversarial)), wanted), adversarial)
        step = adversarial.detach() - 0.2 * slope.sign() - images
        for one in step:
            one *= min(1.0, 2.0 * SIZE / 32 / float(one.norm()))
        adversarial = (images + step).clamp(0, 1)
    d = cleanser.perturb(images, wanted)
    close(images + d, adversarial)
    assert d.flatten(1).norm(dim=1).max() <= 2.0 * SIZE / 32 + 1e-6
    assert (explicit(normalised(adversarial)).softmax(1) - logits.softmax(1)).gather(1, wanted[:, None]).mean() > 0

    loss = cleanser.training_step(Batch(images), 0)
    loss.backward()
    answers = explicit(normalised(adversarial))
    p = answers.softmax(1)
    expected = entropy(logits, targets) + 0.3 * entropy(answers, logits.argmax(1))
    for row, target, own in zip(p, wanted, classes, strict=True):
        other = max(number for number in range(CLASSES) if number != own and row[number] == row[row != row[own]].max())
        expected = expected - 0.3 * ((1.0001 - row[target]).log() + (1.0001 - row[other]).log()) / len(images)
    expected.backward()
    close(loss, expected)
    close(cleanser.polarizer.grad, polarizer.weight.grad.squeeze())
    assert all(value.grad is None for value in cleanser.network.parameters())

    before = state(cleanser.network)
    cleanser.finish()
    close(cleanser(images), logits)
    assert [name for name, value in state(cleanser.network).items() if not torch.equal(value, before[name])] == [
        "4.weight"
    ]
