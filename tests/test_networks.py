import pytest
import torch
from torch import nn
from torchvision import models

from bdclean import InputError
from bdclean.cleansing.reinitialise import stage_ratios
from bdclean.networks import Normalize, build_network, find_stages, folded, weights
from bdclean.networks.cifar import FIXED, NETWORKS

FAMILIES = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_0",
    "swin_t",
    "swin_v2_t",
    "vgg11",
    "vit_b_32",
]
# All but three whose real weights, gigabytes of them, the test would have to draw.
OTHERS = sorted({*models.list_models(module=models)} - {*FAMILIES, "regnet_y_128gf", "regnet_x_32gf", "regnet_y_32gf"})


def stages_of(network: nn.Module, size: int) -> dict[str, int]:
    return {layer.name: layer.stage for layer in find_stages(network, size)}


def test_normalize() -> None:
    images = torch.rand(2, 3, 4, 4)
    expected = torch.stack([(images[:, c] - m) / s for c, (m, s) in enumerate([(0.1, 0.5), (0.2, 0.6), (0.3, 0.7)])], 1)
    layer = Normalize([0.1, 0.2, 0.3], [0.5, 0.6, 0.7])
    for layout in (torch.contiguous_format, torch.channels_last):
        normalised = layer(images.contiguous(memory_format=layout))
        torch.testing.assert_close(normalised, expected)
        assert normalised.is_contiguous(memory_format=layout)
    assert not layer.state_dict()


SMALL = [name for name in NETWORKS if FIXED.get(name, (3, 32)) == (3, 32)]


@pytest.mark.parametrize("arch", [*SMALL, "resnet18", "vgg11_bn", "vgg19_bn", "mobilenet_v2"])
def test_networks_for_small_images(arch: str) -> None:
    with torch.device("meta"):
        network = build_network(arch, 7, 32)
    layers = find_stages(network, 32)
    stages = [layer.stage for layer in layers]
    assert network.eval()(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 7)
    assert sorted(set(stages)) == list(range(stages[-1] + 1))
    assert stages.count(0) == stages.count(stages[-1]) == 1
    everything = {name for name, module in network.named_modules() if weights(module) and not list(module.children())}
    assert {layer.name for layer in layers} == everything


def test_resnet18_has_the_papers_stages_and_ratios() -> None:
    stages = stages_of(build_network("resnet18", 10, 32), 32)
    for name, stage in stages.items():
        assert stage == (0 if name == "conv1" else 5 if name == "fc" else int(name[5])), name
    assert len(stages) == 21
    assert stage_ratios(6) == pytest.approx([0.01, 0.01, 0.03, 0.09, 0.27, 0.10])


def test_stem_keeps_the_size_of_small_images() -> None:
    small, large = build_network("resnet18", 10, 32), build_network("resnet18", 10, 224)
    assert small.conv1.stride == (1, 1)
    assert isinstance(small.maxpool, nn.Identity)
    assert large.conv1.stride == (2, 2)
    assert stages_of(large, 224) == stages_of(small, 32)


def test_stages_of_a_vgg_are_its_resolutions() -> None:
    stages = stages_of(build_network("vgg11_bn", 10, 32), 32)
    assert stages == {
        "features.0": 0, "features.4": 1, "features.8": 2, "features.11": 2, "features.15": 3, "features.18": 3,
        "features.22": 4, "features.25": 4, "classifier.0": 5,
    }  # fmt: skip


def test_squeeze_and_excitation_counts_with_its_block() -> None:
    with torch.device("meta"):
        network = models.efficientnet_b0()
    stages = stages_of(network, 224)
    assert stages["features.2.0.block.2.fc1"] == stages["features.2.0.block.3.0"]


def test_a_transformer_has_four_stages_of_equal_depth() -> None:
    with torch.device("meta"):
        network = models.vit_b_16()
    stages = stages_of(network, 224)
    blocks = [stages[f"encoder.layers.encoder_layer_{index}.mlp.0"] for index in range(12)]
    assert blocks == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    assert (stages["conv_proj"], stages["heads.head"]) == (0, 5)
    assert stages["encoder.layers.encoder_layer_5.self_attention"] == 2
    assert stages["encoder.layers.encoder_layer_5.self_attention.out_proj"] == 2


@pytest.mark.parametrize("arch", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_every_layer_of_every_torchvision_network_is_in_a_stage(arch: str) -> None:
    size = 518 if arch == "vit_h_14" else 299 if arch == "inception_v3" else 224
    # RegNet computes its widths with tensors, which needs a real device.
    with torch.device("cpu" if arch.startswith("regnet") else "meta"):
        network = build_network(arch, 1000, size).to("meta")
    layers = find_stages(network, size)
    wanted = {
        name for name, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.MultiheadAttention)
    }
    assert {layer.name for layer in layers} == wanted
    stages = [layer.stage for layer in layers]
    assert sorted(set(stages)) == list(range(stages[-1] + 1))
    assert 4 <= stages[-1] + 1 <= 9


class TwoNorms(nn.Module):
    """A convolution whose output is used with and without a batch norm, or that is called twice."""

    def __init__(self, twice: bool) -> None:
        super().__init__()
        self.twice = twice
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 5, 1)
        self.norm, self.after = nn.BatchNorm2d(3), nn.BatchNorm2d(5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answer = self.first(images)
        normed = self.norm(self.first(answer) if self.twice else answer)
        return self.after(self.second(normed + answer)).mean((2, 3))


class AsksItsNorm(TwoNorms):
    """Reads its norm layer, not only the layer's output."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * self.after.momentum


class AsksItsWeight(TwoNorms):
    """Reads a weight that folding changes."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * self.second.weight.abs().mean()


class GoesByTheBatch(TwoNorms):
    """Has batch norms that stay in train mode."""

    def train(self, mode: bool = True) -> "GoesByTheBatch":
        super().train(mode)
        self.norm.train()
        self.after.train()
        return self


def with_statistics(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
    return network.eval().requires_grad_(False)


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(("arch", "left"), [("resnet20", 0), ("preact_resnet18", 8), ("mobilenet_v2", 0)])
def test_folded_batch_norms_give_the_same_logits(arch: str, left: int) -> None:
    network = with_statistics(build_network(arch, 7, 32))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    quick, images = folded(network, 32), torch.rand(5, 3, 32, 32)
    assert norms(quick) == left  # those that stand before their convolutions
    answers = network(images)
    assert torch.allclose(quick(images), answers, atol=1e-4 * float(answers.abs().max()))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in quick.parameters())


def test_networks_that_folding_would_change_are_not_folded() -> None:
    for twice in (True, False):
        quick = folded(with_statistics(TwoNorms(twice)), 8)
        assert isinstance(quick.norm, nn.BatchNorm2d)
        assert isinstance(quick.after, nn.Identity)
    for kind in (AsksItsNorm, AsksItsWeight, GoesByTheBatch):
        network = with_statistics(kind(True))
        assert folded(network, 8) is network
    network = with_statistics(TwoNorms(True))
    network.second.train()
    assert folded(network, 8) is network
    # Hooks do not work in TorchScript modules.
    compiled = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval())
    network = nn.Sequential(compiled, nn.Flatten(), nn.Linear(256, 2)).eval()
    assert folded(network, 8) is network
    assert norms(folded(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), 8)) == 0


def test_a_probe_does_not_change_the_network() -> None:
    network = build_network("resnet20", 10, 32)
    network.train()
    network.layer1[0].eval()
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    find_stages(network, 32)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("arch", "size", "reason"),
    [("resnet_18", 32, "did you mean resnet18"), ("vit_b_16", 30, "does not take")],
)
def test_wrong_architectures_are_named(arch: str, size: int, reason: str) -> None:
    with pytest.raises(InputError, match=f"arch {arch}: .*{reason}"):
        build_network(arch, 10, size)
