"""Recognising the network of weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from bdclean import InputError
from bdclean.checkpoint import Checkpoint, read
from bdclean.cli.main import main
from bdclean.modules import Suspect, identify
from bdclean.networks import (
    Recognised,
    build_network,
    closest,
    input_channels,
    largest_layer,
    normalization,
    recognise,
)
from bdclean.networks.cifar import PreActBlock, ResNet
from tests.conftest import QUIET
from tests.strangers import VGG, Pooled, Sorted

HERE = "tests.strangers"
SHARED = Path(__file__).parent.parent.parent / "shared/suspects"


def made(arch: str, classes: int, size: int) -> nn.Module:
    return build_network(arch, classes, size)


@pytest.mark.parametrize(
    ("network", "arch", "stem", "classes", "size"),
    [
        (models.resnet18(num_classes=43), "resnet18", "photo", 43, None),
        (made("resnet18", 10, 32), "resnet18", "small", 10, None),
        (made("vgg16_bn", 10, 32), "vgg16_bn", "small", 10, None),
        (models.vit_b_32(num_classes=5, image_size=64), "vit_b_32", None, 5, 64),
        (models.googlenet(num_classes=5, init_weights=False), "googlenet", "photo", 5, None),
        (models.squeezenet1_1(num_classes=12), "squeezenet1_1", "photo", 12, None),
        (models.mobilenet_v3_small(num_classes=9), "mobilenet_v3_small", "photo", 9, None),
        (made("preact_resnet18", 43, 32), "preact_resnet18", None, 43, None),
        (made("cifar_resnet18", 10, 32), "cifar_resnet18", None, 10, None),
        (made("wrn_16_1", 10, 32), "wrn_16_1", None, 10, None),
        (made("resnet20", 10, 32), "resnet20", None, 10, None),
        (made("small_cnn", 100, 32), "small_cnn", None, 100, None),
    ],
)
@pytest.mark.parametrize("prefix", ["", "module._orig_mod.", "net.", "1."])
def test_known_networks(
    network: nn.Module, arch: str, stem: str | None, classes: int, size: int | None, prefix: str
) -> None:
    found = recognise({prefix + name: value for name, value in network.state_dict().items()})
    assert found is not None
    assert (found.arch, found.stem, found.num_classes, found.image_size) == (arch, stem, classes, size)


def test_unknown_networks_are_not_guessed() -> None:
    thin = ResNet(PreActBlock, (32, 64, 128, 256), (2, 2, 2, 2), 10, stem_norm=False).state_dict()
    assert recognise(thin) is None
    near, wrong = closest(thin)
    assert near is not None
    assert near.arch == "preact_resnet18"
    assert any(difference.startswith("conv1.weight is") for difference in wrong)


@pytest.mark.parametrize("network", [VGG(), Pooled(), nn.Sequential(nn.Conv2d(3, 6, 5), nn.Linear(400, 10))])
def test_distant_networks_are_not_called_close(network: nn.Module) -> None:
    """A network that differs in most of its tensors is no help, and was called the closest of an eight-tensor CNN."""
    assert closest(network.state_dict()) == (None, [])
    assert closest(network.state_dict(), ["resnet20"])[0] is not None


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (1, 32), (3, 28), (3, 32)])
def test_the_cnn_of_the_badnets_repositories(channels: int, size: int) -> None:
    network = made(f"badnets_cnn_{channels}x{size}", 10, size)
    found = recognise(network.state_dict())
    assert found is not None
    assert (found.num_classes, found.image_size, input_channels(found.arch)) == (10, size, channels)
    grey = [0.5] * channels
    suspect = Suspect(**identify(checkpoint(network), {"mean": grey, "std": grey}, None))
    assert suspect.outputs.kind == "probabilities"
    with pytest.raises(InputError, match=r"mean .*: the network takes (grey|colour) images"):
        Suspect(**identify(checkpoint(network), {"mean": [0.5] * 2, "std": [0.5] * 2}, None))


@pytest.mark.parametrize(
    ("name", "arch", "size"),
    [
        ("verazuo_mnist", "badnets_cnn_1x28", 28),
        ("verazuo_cifar", "badnets_cnn_3x32", 32),
        ("coldchair_mnist", "badnets_cnn_1x28", 28),
    ],
)
def test_course_repositories(name: str, arch: str, size: int) -> None:
    file = SHARED / f"{name}.pth"
    if not file.exists():
        pytest.skip("needs ../shared/suspects")
    found = recognise(read(str(file)).weights)
    assert found == Recognised(arch, None, 10, size)


def test_a_file_cannot_allocate_layers_that_it_lacks() -> None:
    """Claims of a file about a user's class take no memory before they are checked: here 4 TiB."""
    huge = {"widths": (8, 8, 30_000)}
    said = checkpoint(VGG(3, (8, 8, 8)), arch=f"{HERE}.VGG", arch_kwargs=huge)
    with pytest.raises(InputError, match="does not fit tests.strangers.VGG with .*30000.*, by its metadata"):
        identify(said, {"arch": f"{HERE}.VGG", "arch_kwargs": huge}, 32)
    with pytest.raises(InputError, match="does not fit resnet20 with 90000 classes: its weights are for 10"):
        identify(checkpoint(made("resnet20", 10, 32), arch="resnet20", num_classes=90_000), {}, 32)


def test_the_largest_layer_is_found_without_computing() -> None:
    assert largest_layer("small_cnn", 32, None) == 16 * 32 * 32
    assert largest_layer("wrn_28_10", 800, None) == 160 * 800**2
    assert largest_layer("vit_b_16", 17, None) == 0


def checkpoint(network: nn.Module, **said: Any) -> Checkpoint:
    return Checkpoint("file.pth", None, network.state_dict(), model=said)


def test_values_from_the_weights() -> None:
    said = identify(checkpoint(models.vit_b_32(num_classes=5, image_size=64)), {"mean": "none"}, None)
    assert said == {"arch": "vit_b_32", "stem": None, "num_classes": 5, "image_size": 64, "mean": "none"}
    assert identify(checkpoint(made("resnet18", 10, 32)), {}, None)["image_size"] == 32
    assert identify(checkpoint(models.resnet18()), {}, None)["image_size"] == 224
    assert identify(checkpoint(models.resnet18()), {"image_size": 96}, 32)["image_size"] == 96
    with pytest.raises(InputError, match=r"image_size: needed, as resnet18 .* 224 .*these have 96"):
        identify(checkpoint(models.resnet18()), {}, 96)


def test_classes_of_the_users() -> None:
    said = identify(checkpoint(VGG(7)), {"arch": f"{HERE}.VGG"}, None)
    assert (said["num_classes"], said["image_size"]) == (7, 32)
    widths = (8, 8, 8)
    given = {"arch": f"{HERE}.VGG", "arch_kwargs": {"widths": widths}}
    assert identify(checkpoint(VGG(3, widths)), given, None)["num_classes"] == 3
    with pytest.raises(InputError, match=r"image_size: needed, as arch .*Pooled takes .*32, 224"):
        identify(checkpoint(Pooled()), {"arch": f"{HERE}.Pooled"}, None)
    assert identify(checkpoint(Pooled()), {"arch": f"{HERE}.Pooled"}, 48)["image_size"] == 48
    grey = {"arch": f"{HERE}.Pooled", "arch_kwargs": {"channels": 1}, "image_size": 28, "mean": [0.1], "std": [0.3]}
    suspect = Suspect(**identify(checkpoint(Pooled(channels=1)), grey, None))
    assert suspect(torch.rand(2, 3, 28, 28)).shape == (2, 4)


def test_a_class_that_only_the_checkpoint_names_is_not_run() -> None:
    with pytest.raises(InputError, match=r"ckpt file.pth: its network is os.system, .* arch os.system"):
        identify(checkpoint(VGG(), arch="os.system"), {"arch": None}, None)


def test_auxiliary_heads_are_kept() -> None:
    network = models.googlenet(num_classes=5, init_weights=False)
    said = identify(checkpoint(network), {"mean": "imagenet", "image_size": 64}, 32)
    suspect = Suspect(**said)
    suspect.load(checkpoint(network), "ckpt")
    assert torch.equal(suspect.network.fc.weight, network.fc.weight)


def test_the_class_count_is_the_one_that_fits() -> None:
    # Files of safetensors are sorted: the last matrix is not the head's.
    given = {"arch": f"{HERE}.Sorted", "image_size": 32}
    said = identify(Checkpoint("file.safetensors", None, dict(sorted(Sorted(5).state_dict().items()))), given, None)
    assert said["num_classes"] == 5


def test_a_name_overrides_the_checkpoint() -> None:
    said = {"arch": "resnet20", "mean": [0.5] * 3, "std": [0.2] * 3}
    given = {"arch": "resnet20", "mean": "cifar10", "std": [0.2] * 3}
    suspect = Suspect(**identify(checkpoint(made("resnet20", 10, 32), **said), given, None))
    assert suspect.hparams["std"] == [0.2470, 0.2435, 0.2616]


def test_layers_that_need_their_version() -> None:
    network = models.mnasnet0_5(num_classes=6)
    suspect = Suspect(**identify(checkpoint(network), {"mean": "imagenet"}, None))
    suspect.load(checkpoint(network), "ckpt")
    assert torch.equal(suspect.network.classifier[1].weight, network.classifier[1].weight)


def test_timm_at_another_size() -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("vit_tiny_patch16_224", num_classes=6, img_size=32)
    given = {"arch": "timm/vit_tiny_patch16_224", "mean": "imagenet", "image_size": 32}
    Suspect(**identify(checkpoint(network), given, None)).load(checkpoint(network), "ckpt")


def test_timm() -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("resnet10t", num_classes=6)
    said = identify(checkpoint(network), {"arch": "timm/resnet10t", "mean": "imagenet"}, None)
    assert (said["num_classes"], said["image_size"]) == (6, 176)
    Suspect(**said).load(checkpoint(network), "ckpt")
    for name in ("hf-hub:somebody/network", "local-dir:/tmp", "resnet10"):
        with pytest.raises(InputError, match=f"arch timm/{name}: timm has no such network"):
            build_network(f"timm/{name}", 6, 32)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"arch": "resnet20"}, r"ckpt file.pth: does not fit resnet20: missing conv1.weight, surplus"),
        (
            {},
            r"arch: needed, as file.pth fits no known network; arch my_module.MyNet names the class",
        ),
        ({"arch": f"{HERE}.Nothing"}, f"arch {HERE}.Nothing: cannot be imported"),
        ({"arch": "no_such.Thing"}, "arch no_such.Thing: cannot be imported"),
        ({"arch": f"{HERE}.torch"}, "cannot be made"),
        ({"arch": f"{HERE}.VGG", "arch_kwargs": {"depth": 3}}, r"arch_kwargs .*depth.*: cannot be made"),
        ({"arch": f"{HERE}.Shapeless", "image_size": 32}, f"arch {HERE}.Shapeless: outputs tuple"),
        ({"arch": f"{HERE}.VGG", "image_size": 40}, f"arch {HERE}.VGG: does not take 40x40 images"),
        ({"arch": "resnet18", "arch_kwargs": {"a": 1}}, "does not fit resnet18"),
    ],
)
def test_impossible_arguments_are_named(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Suspect(**identify(checkpoint(VGG()), {"mean": "none", **given}, None))


def test_differences_are_listed() -> None:
    suspect = Suspect("resnet20", num_classes=10, image_size=32, mean="none")
    state = suspect.network.state_dict()
    state["extra"] = torch.ones(1)
    state["linear.weight"] = torch.ones(3, 3)
    del state["conv1.weight"]
    wrong = Checkpoint("file.pth", None, state)
    with pytest.raises(
        InputError, match=r"missing conv1.weight, surplus extra, linear.weight is \(3, 3\) instead of \(10, 64\)"
    ):
        suspect.load(wrong, "ckpt")
    # PyTorch before 0.4.1 did not count batches.
    old = {name: value for name, value in suspect.network.state_dict().items() if "num_batches" not in name}
    suspect.load(Checkpoint("file.pth", None, old), "ckpt")


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        ("none", None, ([0, 0, 0], [1, 1, 1])),
        ("imagenet", "imagenet", ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])),
        ((0.1, 0.2, 0.3), (1, 2, 3), ([0.1, 0.2, 0.3], [1, 2, 3])),
        ((0.5,), (0.25,), ([0.5] * 3, [0.25] * 3)),
        (0.5, 0.25, ([0.5] * 3, [0.25] * 3)),
        (0, (0.1, 0.2, 0.3), ([0] * 3, [0.1, 0.2, 0.3])),
        ("half", None, ([0.5] * 3, [0.5] * 3)),
        ("byte", None, ([0] * 3, [1 / 255] * 3)),
        ("mnist", None, ([0.1307] * 3, [0.3081] * 3)),
    ],
)
def test_normalization(mean: Any, std: Any, expected: Any) -> None:
    assert normalization(mean, std, 3) == expected


def test_a_name_or_a_number_is_for_as_many_channels_as_there_are() -> None:
    assert normalization("half", None, 1) == ([0.5], [0.5])
    assert normalization(0.1307, 0.3081, 1) == ([0.1307], [0.3081])
    with pytest.raises(InputError, match="the network takes grey images, of 1 channels"):
        normalization("imagenet", None, 1)


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        (None, None),
        ("cifar", None),
        ((float("nan"), 0, 0), (1, 1, 1)),
        ((125, 123, 114), (63, 62, 67)),
        ([0.5], None),
        ("none", "cifar10"),
        ("none", (1, 1, 1)),
        ((0, 0), (1, 1)),
        ((0,) * 3, (1, 0, 1)),
        (0.5, 58.4),
        (0.0, 1e-45),
        (-1e308, 1.0),
        (-1e30, 1.0),
    ],
)
def test_normalization_is_not_guessed(mean: Any, std: Any) -> None:
    with pytest.raises(InputError, match=r"(mean|std)"):
        normalization(mean, std, 3)


def test_a_class_is_importable_from_the_current_folder(tmp_path: Path) -> None:
    Path("my_net.py").write_text(
        "import torch\nclass Net(torch.nn.Linear):\n    def __init__(self):\n        super().__init__(3, 2)"
    )
    assert isinstance(build_network("my_net.Net", 2, 32), nn.Linear)


def test_a_preset_is_for_our_own_checkpoints_too(tiny_suspect: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["test", "--ckpt", str(tiny_suspect), "--model.mean", "imagenet", *QUIET])
    with pytest.raises(SystemExit):
        main(["test", "--ckpt", str(tiny_suspect), "--model.mean", "imagnet", *QUIET])
    assert "--model.mean imagnet: no such normalisation; did you mean imagenet?" in capsys.readouterr().err
