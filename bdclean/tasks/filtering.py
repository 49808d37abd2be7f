"""Find the images that carry a trigger."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from bdclean import earlier, outputs
from bdclean.data import PoisonDataModule
from bdclean.data.notices import say
from bdclean.data.sources import Source
from bdclean.engine.introduction import introduce
from bdclean.engine.precision import whole
from bdclean.engine.trainer import Trainer
from bdclean.errors import Given, InputError, within
from bdclean.filtering import (
    Context,
    Disagreement,
    PredictedBatch,
    Score,
    highest,
    p_values,
    predict_batches,
    threshold,
)
from bdclean.modules import Classifier
from bdclean.reporting import html
from bdclean.reporting.files import write_csv, write_json
from bdclean.reporting.filtering import SHOWN, page
from bdclean.reporting.filters import Filtering, Threshold
from bdclean.reporting.parts import Cost, Paths, Subject
from bdclean.scanning import ALPHA
from bdclean.suspects.alike import load_alike
from bdclean.tasks.filter_inputs import CleanImages, filter_inputs, known_clean, read, some_of
from bdclean.tasks.looking import class_names

OVERLAYS = 128
"""Number of images that scores may blend with others."""


def filter_images(
    trainer: Trainer,
    model: Classifier,
    datamodule: PoisonDataModule,
    cleansed: str | Classifier | None = None,
    score: Score | None = None,
    clean: str | Source | None = None,
    alpha: float = ALPHA,
    output: str | None = None,
    overwrite: bool = False,
    require_clean: bool = False,
) -> Filtering:
    """Score images by how likely they carry a trigger, and flag some of them.

    Args:
        trainer: The Trainer.
        model: The suspect.
        datamodule: The images: its unlabeled images if it has a source of them, else its test images, with and without
            the trigger if it has an attack, on which the score is then metrics.
        cleansed: The cleansed network, or its file.
        score: The score; by default Disagreement.
        clean: A source of images that are known to be clean, or its name, which set the threshold; by default
            validation images of the labelled source.
        alpha: Share of false alarms among clean images. If no image is known to be clean, this share of the images is
            flagged, those with the highest scores.
        output: CSV file for the scores, with a JSON file and an HTML page beside it; by default none is written.
        overwrite: Whether to replace files that are not filterings with the same suspect.
        require_clean: Whether to refuse to flag images by rank.

    Raises:
        InputError: If the score needs something that is missing, or the files cannot be written.
    """
    within("alpha", alpha, 0, 1, above=True)
    if trainer.world_size > 1:
        raise InputError("trainer.devices", trainer.world_size, "filter runs in one process")
    files, path = None, None if model.origin is None else model.origin.path
    paths = Paths(path)
    if output is not None:
        outputs.check_name("filter", output)
        files = outputs.plan(output, outputs.REPORTS)
        origin = earlier.origin(files.result, path)
        earlier.refuse_others(files, overwrite, lambda found: earlier.filtered_alike(found, origin, model))
        paths = Paths(path, origin, output)
    other = load_alike(cleansed, model, "cleansed") if isinstance(cleansed, str) else cleansed
    score = Disagreement() if score is None else score
    introduce(model, datamodule, trainer)
    with trainer.writing(files), torch.no_grad():
        datamodule.prepare_data()
        datamodule.setup("test")
        known = known_clean(datamodule, clean)
        if known is None and require_clean:
            raise InputError("exit_code", "true", f"needs images that are known to be clean: {Given('clean')}")
        images = filter_inputs(datamodule, score.compares_images)
        suspect, student = (None if one is None else whole(one).to(trainer.device) for one in (model, other))
        assert suspect is not None
        overlays = some_of(images.parts[0] if known is None else known.images, OVERLAYS).to(trainer.device)
        context = Context(suspect, student, overlays)
        score.check(context)
        name = type(score).__name__
        say(f"Filter: {name}, {len(images.names):,} images, {_described(known)}, on {trainer.device_name}")
        started = time.perf_counter()
        parts = images.parts if known is None else (known.images, *images.parts)
        predicted: list[tuple[Tensor, Tensor | None]] = []
        found = score.scores(
            context, _recorded(predict_batches(context, read(datamodule, parts, trainer.device)), predicted)
        )
        cost = Cost(round(time.perf_counter() - started, 1), trainer.device_name)
        reference, scores = found.tensor_split([0 if known is None else len(known.images)])
        limit = _limit(reference, alpha, known)
        classes = torch.cat([one for one, _ in predicted])[len(reference) :]
        others = None if student is None else torch.cat([one for _, one in predicted if one is not None])
        order = scores.argsort(descending=True, stable=True)[:SHOWN].tolist()
        result = Filtering(
            score=name,
            options=score.options(),
            subject=Subject(dict(model.hparams), model.outputs.describe() or None, class_names(model, datamodule)),
            images=images.names,
            scores=scores,
            suspect=classes,
            cleansed=None if others is None else others[len(reference) :],
            flagged=highest(scores, alpha) if limit.value is None else scores > limit.value,
            p_values=None if limit.value is None else p_values(scores, reference),
            threshold=limit,
            cost=cost,
            most_suspicious=images.chosen(order),
            triggered=images.triggered,
            cleansed_path=None if other is None or other.origin is None else other.origin.path,
            paths=paths,
        )
        if files is not None:
            write_csv(files.result, result.header(), result.rows())
            write_json(files.reports[0], result.to_json())
            html.write(files.reports[1], page(result))
    return result


def _described(known: CleanImages | None) -> str:
    return "no image is known to be clean" if known is None else f"{len(known.images):,} {known.origin}"


def _recorded(
    batches: Iterable[PredictedBatch], predicted: list[tuple[Tensor, Tensor | None]]
) -> Iterator[PredictedBatch]:
    """Pass batches on, and append the predictions of both networks for each to a list.

    Raises:
        InputError: If the suspect or the cleansed network outputs nan or inf.
    """
    for batch in batches:
        for option, logits in (("ckpt", batch.suspect), ("cleansed", batch.cleansed)):
            if logits is not None and not logits.isfinite().all():
                raise InputError(option, None, "the network outputs nan or inf for some images")
        predicted.append((batch.predicted.cpu(), None if batch.cleansed is None else batch.cleansed.argmax(1).cpu()))
        yield batch


def _limit(reference: Tensor, alpha: float, known: CleanImages | None) -> Threshold:
    """The threshold from the scores of clean images; with too few of them, the lowest share that they allow."""
    if known is None:
        return Threshold(alpha, None, reference)
    lowest = 1 / (len(reference) + 1)
    if alpha < lowest:
        say(
            f"WARNING: {Given('alpha', alpha)}: {len(reference)} clean images allow no share of false alarms below "
            f"{lowest:.2g}, which is used instead."
        )
    used = max(alpha, lowest)
    return Threshold(used, threshold(reference, used), reference, known.origin)
