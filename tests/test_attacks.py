from pathlib import Path

import pytest
import torch
from PIL import Image

from bdclean import InputError, attacks
from bdclean.attacks import Attack, BadNets
from bdclean.attacks.roles import POISONED


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def built(attack: Attack) -> Attack:
    """An attack with its trigger for the images of these tests."""
    attack.build(12)
    return attack


def test_default_patch_is_a_black_and_white_3x3_in_the_bottom_right(images: torch.Tensor) -> None:
    triggered = built(BadNets()).apply(images)
    for row in range(12):
        for column in range(12):
            expected = images[:, :, row, column]
            if row >= 9 and column >= 9:
                expected = torch.full_like(expected, (row - 9 + column - 9) % 2)
            assert torch.equal(triggered[:, :, row, column], expected)


@pytest.mark.parametrize(
    ("position", "margin", "corner"),
    [
        ("top-left", 1, (1, 1)),
        ("top-right", 2, (2, 6)),
        ("bottom-left", 0, (8, 0)),
        ("bottom-right", 1, (7, 7)),
        ("center", 0, (4, 4)),
        ((3, 5), 0, (3, 5)),
    ],
)
def test_position(images: torch.Tensor, position: object, margin: int, corner: tuple[int, int]) -> None:
    attack = BadNets(trigger="white", size=4, position=position, margin=margin)  # type: ignore[arg-type]
    expected = images.clone()
    expected[:, :, corner[0] : corner[0] + 4, corner[1] : corner[1] + 4] = 1
    assert torch.equal(built(attack).apply(images), expected)


def test_file_with_transparency_is_blended(images: torch.Tensor, tmp_path: Path) -> None:
    Image.new("RGBA", (2, 3), (255, 0, 51, 102)).save(tmp_path / "trigger.png")
    triggered = built(BadNets(trigger=str(tmp_path / "trigger.png"), position="top-left")).apply(images)
    colour = torch.tensor([1.0, 0.0, 0.2]).view(3, 1, 1)
    torch.testing.assert_close(triggered[:, :, :3, :2], 0.6 * images[:, :, :3, :2] + 0.4 * colour)
    assert torch.equal(triggered[:, :, 3:], images[:, :, 3:])


def test_images_are_not_changed_in_place_and_stay_in_range(images: torch.Tensor) -> None:
    before = images.clone()
    triggered = built(BadNets(trigger="random", size=5, seed=3)).apply(images)
    assert torch.equal(images, before)
    assert triggered.min() >= 0
    assert triggered.max() <= 1
    assert torch.equal(triggered, built(BadNets(trigger="random", size=5, seed=3)).apply(images))
    assert not torch.equal(triggered, built(BadNets(trigger="random", size=5, seed=4)).apply(images))


def test_grey_images_get_a_grey_patch() -> None:
    assert built(BadNets()).apply(torch.zeros(1, 1, 5, 5)).sum() == 4


def test_poisoned_images_are_the_rate_of_all_and_none_of_the_target_class() -> None:
    labels = torch.arange(1000) % 10
    poisoned = BadNets(target_class=3, poison_rate=0.2).choose(labels, 10) == POISONED
    assert poisoned.sum() == 200
    assert not poisoned[labels == 3].any()
    assert torch.equal(poisoned, BadNets(target_class=3, poison_rate=0.2).choose(labels, 10) == POISONED)
    assert not torch.equal(poisoned, BadNets(target_class=3, poison_rate=0.2, seed=1).choose(labels, 10) == POISONED)


def test_targets() -> None:
    labels = torch.tensor([0, 1, 2])
    assert BadNets(target_class=1).target_labels(labels, 3).tolist() == [1, 1, 1]
    assert BadNets(label_mode="all-to-all").target_labels(labels, 3).tolist() == [1, 2, 0]
    assert BadNets(label_mode="all-to-all", poison_rate=1.0).choose(labels, 3).eq(POISONED).all()


@pytest.mark.parametrize(
    ("attack", "option"),
    [
        (lambda: BadNets(poison_rate=1.5), "poison_rate 1.5"),
        (lambda: BadNets(poison_rate=1e-6).choose(torch.arange(10), 10), "poison_rate 1e-06"),
        (lambda: BadNets(poison_rate=0.95).choose(torch.arange(10), 10), "poison_rate 0.95"),
        (lambda: BadNets(target_class=10).target_labels(torch.arange(10), 10), "target_class 10"),
        (lambda: BadNets(size=0), "size 0"),
        (lambda: BadNets(margin=-1), "margin -1"),
        (lambda: BadNets(size=9).build(8), "size 9"),
        (lambda: built(BadNets(margin=6)).apply(torch.zeros(1, 3, 8, 8)), "position bottom-right"),
        (lambda: BadNets(trigger="nowhere.png").build(8), "trigger nowhere.png"),
        (lambda: BadNets(trigger=__file__).build(8), "trigger"),
    ],
)
def test_wrong_options_are_named(attack: object, option: str) -> None:
    with pytest.raises(InputError, match=option) as caught:
        attack()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_every_attack_keeps_its_options_and_its_trigger(name: str) -> None:
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    attack = attacks.ATTACKS[name](target_class=1)
    if not attack.prepares:
        attack.build(16)
    elif attack.parts:
        # Their triggers are made beforehand.
        for option in ("surrogate_epochs", "encoder_epochs", "trigger_epochs", "steps"):
            setattr(attack, option, 1)
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 5), torch.nn.Linear(5, 2))
        attack.prepare(lambda indices: images[indices], torch.tensor([0, 1, 0, 1]), 2, network)
    triggered = attack.apply(images)
    assert triggered.shape == images.shape
    assert not torch.equal(triggered, images)
    again = attacks.ATTACKS[name](**attack.options())
    again.restore(attack.state_dict())
    assert again.options() == attack.options()
    assert torch.equal(again.apply(images), triggered)


def test_a_trigger_from_a_checkpoint_does_not_need_its_file(images: torch.Tensor, tmp_path: Path) -> None:
    path = tmp_path / "trigger.png"
    Image.new("RGB", (2, 2), (255, 0, 0)).save(path)
    attack = built(BadNets(trigger=str(path)))
    triggered = attack.apply(images)
    path.unlink()
    again = BadNets(**attack.options())
    again.restore(attack.state_dict())
    assert torch.equal(again.apply(images), triggered)
