"""Estimating the harm of a cleansing, on tables of known changes of predictions."""

import torch

from bdclean.cleansing.harm import find_harm


def test_unchanged_predictions_are_no_harm() -> None:
    harm = find_harm(torch.diag(torch.tensor([50, 50])), torch.tensor([49.0, 50.0]))
    assert (harm.images, harm.disagreement, harm.lost, harm.reasons) == (100, 0.0, (), [])
    assert abs(harm.uncertainty - 0.01) < 1e-6


def test_disagreement_counts_beyond_the_suspects_uncertainty() -> None:
    moved = torch.tensor([[420, 40, 40], [40, 420, 40], [40, 40, 420]])
    sure = find_harm(moved, torch.tensor([495.0, 495.0, 495.0]))
    assert (
        "disagrees with the suspect on 16.0 % of 1,500 images, and the suspect's uncertainty explains only 1.0 %"
        in "; ".join(sure.reasons)
    )
    unsure = find_harm(moved, torch.tensor([420.0, 420.0, 420.0]))
    assert unsure.reasons == []


def test_a_vanished_class_is_named_even_if_it_is_rare() -> None:
    moved = torch.diag(torch.tensor([500, 500, 0]))
    moved[2, 0] = 7
    harm = find_harm(moved, torch.tensor([499.0, 499.0, 7.0]))
    assert harm.reasons == ["class 2 vanished: 7 images in the suspect, none in the cleansed network"]
    # Of four images, that may be chance.
    moved[2, 0] = 4
    assert find_harm(moved, torch.tensor([499.0, 499.0, 4.0])).reasons == []


def test_a_class_that_lost_many_images_is_named() -> None:
    moved = torch.diag(torch.tensor([500, 500, 70]))
    moved[2, 1] = 30
    harm = find_harm(moved, torch.tensor([499.0, 499.0, 99.0]))
    assert harm.reasons == ["class 2 kept only 70 of its 100 images"]
    assert find_harm(moved, torch.tensor([499.0, 499.0, 70.0])).reasons == []


def test_no_harm_without_images() -> None:
    assert find_harm(torch.zeros(3, 3, dtype=torch.long), torch.zeros(3)).reasons == []
