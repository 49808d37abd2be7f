"""Common layouts of labelled images in folders."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bdclean import InputError
from bdclean.data import PoisonDataModule
from bdclean.data.sources import Source, open_source


def draw(*paths: str) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def labelled(source: Source, split: str) -> dict[str, int]:
    images = source.load(split, 8)
    paths = [path.relative_to(source.name).as_posix() for path in images.paths]  # type: ignore[attr-defined]
    return dict(zip(paths, images.labels.tolist(), strict=True))


def tiny_imagenet() -> None:
    for wnid in ("n02", "n01"):
        draw(f"tiny/train/{wnid}/images/{wnid}_0.JPEG", f"tiny/train/{wnid}/images/{wnid}_1.JPEG")
        write(f"tiny/train/{wnid}/{wnid}_boxes.txt", f"{wnid}_0.JPEG\t0\t0\t62\t62\n")
    draw("tiny/val/images/val_0.JPEG", "tiny/val/images/val_1.JPEG", "tiny/test/images/test_0.JPEG")
    write("tiny/val/val_annotations.txt", "val_0.JPEG\tn02\t0\t0\t44\t62\nval_1.JPEG\tn01\t0\t0\t9\t9\n")
    write("tiny/wnids.txt", "n02\nn01\n")
    write("tiny/words.txt", "n00\tentity\nn01\tgoldfish, Carassius auratus\nn02\tlemon\n")


def test_tiny_imagenet_as_it_is_unpacked(caplog: pytest.LogCaptureFixture) -> None:
    tiny_imagenet()
    source = open_source("tiny")
    assert (source.num_classes, source.numbered) == (2, False)
    assert source.class_names == ("n01 goldfish, Carassius auratus", "n02 lemon")
    assert labelled(source, "test") == {"val/images/val_0.JPEG": 1, "val/images/val_1.JPEG": 0}
    assert labelled(source, "train") == {
        f"train/n0{n + 1}/images/n0{n + 1}_{i}.JPEG": n for n in (0, 1) for i in (0, 1)
    }
    assert labelled(open_source("tiny/val"), "test") == {"images/val_0.JPEG": 1, "images/val_1.JPEG": 0}
    assert not caplog.records


def test_tiny_imagenet_sorted_into_folders_with_an_empty_one_left_over() -> None:
    tiny_imagenet()
    for number, wnid in (("0", "n02"), ("1", "n01")):
        Path(f"tiny/val/{wnid}").mkdir()
        Path(f"tiny/val/images/val_{number}.JPEG").rename(f"tiny/val/{wnid}/val_{number}.JPEG")
    assert labelled(open_source("tiny"), "test") == {"val/n02/val_0.JPEG": 1, "val/n01/val_1.JPEG": 0}


def test_a_folder_called_images_is_not_a_class() -> None:
    draw("photos/train/cat/0.png", "photos/train/dog/0.png", "photos/val/images/0.png", "photos/val/dog/0.png")
    with pytest.raises(InputError, match=r"source photos: in photos/val, images would be a class beside dog: put"):
        PoisonDataModule("photos", image_size=8)


def test_classes_that_the_training_part_lacks_are_an_error() -> None:
    draw("photos/train/cat/0.png", "photos/train/dog/0.png", "photos/val/cow/0.png", "photos/val/dog/0.png")
    with pytest.raises(InputError, match=r"photos/val has classes that photos/train does not have: cow$"):
        PoisonDataModule("photos", image_size=8)
    # An empty folder is not a class.
    Path("photos/val/cow").rename("photos/val/cat")
    Path("photos/val/dog/0.png").unlink()
    Path("photos/val/dog").rmdir()
    assert labelled(open_source("photos"), "test") == {"val/cat/0.png": 0}


def test_numbered_test_folders_may_have_leading_zeros() -> None:
    draw("signs/Train/00000/0.png", "signs/Train/00007/0.png", "signs/Test/7/0.png")
    source = open_source("signs")
    assert (source.num_classes, source.numbered, source.class_names) == (8, True, ())
    assert labelled(source, "test") == {"Test/7/0.png": 7}


@pytest.mark.parametrize("place", ["", "Final_Test/", "Final_Test/Images/"])
def test_gtsrb_as_it_is_unpacked(place: str) -> None:
    for label in ("00000", "00001", "00042"):
        draw(f"GTSRB/Final_Training/Images/{label}/00000_00000.ppm")
        write(f"GTSRB/Final_Training/Images/{label}/GT-{label}.csv", "Filename;Width;ClassId\n00000_00000.ppm;8;1\n")
    draw("GTSRB/Final_Test/Images/00000.ppm", "GTSRB/Final_Test/Images/00001.ppm")
    # The archive of the test images has no classes.
    write("GTSRB/Final_Test/Images/GT-final_test.test.csv", "Filename;Width;Height;Roi.X1\n00000.ppm;8;8;1\n")
    columns = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"
    write(f"GTSRB/{place}GT-final_test.csv", f"{columns}00000.ppm;8;8;1;1;7;7;42\n00001.ppm;8;8;1;1;7;7;1\n")
    source = open_source("GTSRB")
    assert (source.num_classes, source.numbered) == (43, True)
    assert labelled(source, "test") == {"Final_Test/Images/00000.ppm": 42, "Final_Test/Images/00001.ppm": 1}
    assert sorted(labelled(source, "train").values()) == [0, 1, 42]


def test_gtsrb_as_kaggle_has_it() -> None:
    draw("signs/Train/0/00000_a.png", "signs/Train/1/00001_a.png", "signs/Test/00000.png", "signs/Meta/0.png")
    write("signs/Train.csv", "Width,Height,ClassId,Path\n8,8,0,Train/0/00000_a.png\n8,8,1,Train/1/00001_a.png\n")
    write("signs/Test.csv", "Width,Height,ClassId,Path\n8,8,1,Test/00000.png\n")
    assert labelled(open_source("signs"), "test") == {"Test/00000.png": 1}
    assert labelled(open_source("signs"), "train") == {"Train/0/00000_a.png": 0, "Train/1/00001_a.png": 1}


CLASSES = {"n01": "tench", "n02": "goldfish", "n03": "shark"}
VAL = ("val/ILSVRC2012_val_00000001.JPEG", "val/ILSVRC2012_val_00000002.JPEG")


@pytest.mark.parametrize(
    "files",
    [
        {"LOC_val_solution.csv": "ImageId,PredictionString\nILSVRC2012_val_00000002,n02 1 2 3 4 n02 5 6 7 8 \n"
                                 "ILSVRC2012_val_00000001,n03 1 2 3 4 \n"},
        {"val.txt": "ILSVRC2012_val_00000001.JPEG 2\nILSVRC2012_val_00000002.JPEG 1\n",
         "train.txt": "n01/a.JPEG 0\n"},
        {"val/labels.csv": "filename,label\nILSVRC2012_val_00000001.JPEG,n03\nILSVRC2012_val_00000002.JPEG,n02\n"},
    ],
)  # fmt: skip
def test_imagenets_validation_images_beside_a_file(files: Mapping[str, str]) -> None:
    draw(*(f"imagenet/train/{wnid}/a.JPEG" for wnid in CLASSES), *(f"imagenet/{path}" for path in VAL))
    write("imagenet/LOC_synset_mapping.txt", "".join(f"{wnid} {name}\n" for wnid, name in CLASSES.items()))
    for path, text in files.items():
        write(f"imagenet/{path}", text)
    source = open_source("imagenet")
    assert labelled(source, "test") == {VAL[0]: 2, VAL[1]: 1}
    assert source.class_names == ("n01 tench", "n02 goldfish", "n03 shark")


def test_labels_that_count_from_1_where_folders_have_names() -> None:
    draw("imagenet/train/n01/a.png", "imagenet/train/n02/a.png", "imagenet/val/0.png", "imagenet/val/1.png")
    write("imagenet/val.txt", "0.png 1\n1.png 2\n")
    with pytest.raises(InputError, match="does not have: 2; do they count from 1"):
        _ = open_source("imagenet").num_classes


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("ILSVRC2012_validation_ground_truth.txt", "490\n361\n", "an order that networks do not use: take LOC_val"),
        ("list_attr_celeba.txt", "1\nSmiling Young\n000001.jpg 1 -1\n", "40 attributes for each image, and no class"),
        ("list_attr_celeba.csv", "image_id,Smiling,Young\n000001.jpg,1,-1\n", "40 attributes for each image"),
        ("answers.csv", "filename,width,height\n000001.jpg,8,8\n", "no column called label, but filename, width"),
        ("labels.csv", "filename,label\n000001.jpg\n", "line 2 has no class for an image"),
    ],
)  # fmt: skip
def test_unusable_files_give_advice(name: str, text: str, message: str) -> None:
    draw("faces/000001.jpg", "faces/000002.jpg")
    write(f"faces/{name}", text)
    with pytest.raises(InputError, match=message) as caught:
        PoisonDataModule("faces", image_size=8)
    assert str(caught.value).startswith(f"source faces: faces/{name}")


HEADER = "filename,label\n"
GOOD = f"{HEADER}a.png,cat\nb.png,dog\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{GOOD}a.png,dog\n", ", line 4: a.png has two classes, dog here and cat in line 2"),
        (f"{GOOD}\n./a.png,dog\n", ", line 5: ./a.png has two classes, dog here and cat in line 2"),
        ("a.png,cat\na,dog\n", ", line 2: a has two classes, dog here and cat in line 1"),
        (f"{HEADER}../x.png,cat\n", ", line 2: ../x.png leads out of loose"),
        (f"{GOOD}../x.png,cat\n", ", line 4: ../x.png leads out of loose"),
        (f"{GOOD}sub/../../x.png,cat\n", ", line 4: sub/../../x.png leads out of loose"),
        ("a.png\nb.png\n", " has one column, and needs two"),
        (f"{HEADER}/else/a.png,cat\n/else/b.png,dog\n", ", line 2: /else/a.png leads out of loose"),
        (f"{GOOD}/else/a.png,cat\n", ", line 4: /else/a.png leads out of loose"),
        (f"{HEADER}C:\\photos\\a.png,cat\n", r", line 2: C:\photos\a.png leads out of loose"),
        ("", " is empty: it needs a row for each image"),
        (" \n\n", " is empty: it needs a row for each image"),
        (HEADER, " is empty: it needs a row for each image"),
        (f"{HEADER}x.png,cat\ny.png,dog\n", " names no existing image: line 2 has x.png"),
        (f"{HEADER}a.png,{'x' * 200_000}\n", ", line 2 cannot be read (field larger than field limit"),
        (f"{GOOD}a.png,{'x' * 200_000}\n", ", line 4 cannot be read (field larger than field limit"),
        (f"{GOOD}a.png,{'x' * 2_000}\n", f", line 4: the class {'x' * 60}... has 2000 characters"),
        (f"a.png cat\nb.png {'x' * 200_000}\n", f", line 2: the class {'x' * 60}... has 200000 characters"),
        (f"{GOOD}c.png,ca\0t\n", r", line 4 has the character '\x00'"),
        (f"{HEADER}a.png,\0cat\n", r", line 2 has the character '\x00'"),
        (f"{GOOD}\x1b[31m.png,cat\n", r", line 4 has the character '\x1b'"),
        (f'{GOOD}c.png,"cow\nd.png,pig\n', ", line 4 cannot be read (unexpected end of data)"),
        (f"{GOOD}c.png,\n", ", line 4 has no class for an image"),
    ],
)  # fmt: skip
def test_broken_tables_name_the_line(text: str, message: str) -> None:
    draw("loose/a.png", "loose/b.png", "x.png")
    write("loose/labels.csv", text)
    with pytest.raises(InputError) as caught:
        _ = open_source("loose").num_classes
    assert str(caught.value).startswith(f"source loose: loose/labels.csv{message}")


def test_a_broken_table_of_any_name_is_an_error() -> None:
    draw("loose/a.png", "loose/b.png")
    write("loose/breeds.csv", f"photo,kind\na.png,cat\nb.png,{'x' * 200_000}\n")
    with pytest.raises(InputError, match="loose/breeds.csv, line 3 cannot be read"):
        _ = open_source("loose").num_classes


def test_a_table_of_another_encoding_is_an_error() -> None:
    draw("loose/a.png", "loose/b.png")
    Path("loose/labels.csv").write_text(GOOD, encoding="utf-16")
    with pytest.raises(InputError, match=r"labels.csv, line 1 has the character '\\x00': save the table as UTF-8 text"):
        _ = open_source("loose").num_classes


def test_absolute_paths_in_the_folder_and_repeated_rows() -> None:
    draw("loose/a.png", "loose/b.png", "loose/sub/c.png")
    Path("link").symlink_to("loose")
    here = Path.cwd()
    rows = f"{here}/loose/a.png,cat\n{here}/loose/b.png,dog\n{here}/loose/b.png,dog\n../loose/sub/c.png,dog\n"
    write("loose/labels.csv", f"{HEADER}{rows}")
    for name in ("loose", "link", str(here / "loose"), "../" + here.name + "/loose"):
        assert labelled(open_source(name), "test") == {"a.png": 0, "b.png": 1, "sub/c.png": 1}


def test_a_table_in_one_part_does_not_apply_to_another() -> None:
    draw("both/train/cat/a.png", "both/train/dog/a.png", "both/val/b.png", "both/val/c.png")
    write("both/val/labels.csv", f"{HEADER}b.png,cat\nc.png,dog\n../train/cat/a.png,dog\n")
    assert labelled(open_source("both"), "test") == {"val/b.png": 0, "val/c.png": 1}
    write("both/val/labels.csv", f"{HEADER}b.png,cat\nc.png,dog\n../../a.png,dog\n")
    with pytest.raises(InputError, match=r"line 4: ../../a.png leads out of both"):
        _ = open_source("both").num_classes


def test_files_that_are_not_tables_of_classes_are_ignored() -> None:
    draw("loose/a.png", "loose/b.png")
    write("loose/labels.csv", GOOD)
    write("loose/a_labels.csv", "")
    Path("loose/b_labels.csv").mkdir()
    Path("loose/c_labels.csv").symlink_to("c_labels.csv")
    os.mkfifo("loose/d_labels.csv")
    write("loose/credits.txt", "../x.png by Ann\n")
    assert labelled(open_source("loose"), "test") == {"a.png": 0, "b.png": 1}


# Data sets in unexpected places


@pytest.mark.parametrize(
    ("paths", "given", "message"),
    [
        (("data/mine/train/cat/0.png", "data/mine/train/dog/0.png"), "data", "data/mine has: give that folder"),
        (("data/mine/train/cat/0.png", "data/mine/train/dog/0.png", "data/more/0.png"), "data", "data/mine has: give"),
        (("d/m/m/Train/cat/0.png", "d/m/m/Train/dog/0.png"), "d", "d has one class, but d/m/m has several: give that"),
        (("d/m/cat/0.png", "d/m/dog/0.png"), "d", "d has one class, but d/m has several: give that folder"),
        (("d/images/val/cat/0.png", "d/images/val/dog/0.png"), "d", "d/images has: give that folder"),
        (("d/train/train/cat/0.png", "d/train/train/dog/0.png"), "d", "has several: move them into d/train$"),
        (("d/cat/train/0.png", "d/cat/test/0.png", "d/dog/train/0.png", "d/dog/test/0.png"), "d", "each class of d"),
        (("d/a/Train/0.png", "d/a/Val/0.png", "d/b/Train/0.png"), "d", "as d/a/Train and d/a/Val: move the parts"),
        (("d/seg_train/cat/0.png", "d/seg_test/cat/0.png"), "d", "seg_train and seg_test would be classes, but seem"),
    ],
)  # fmt: skip
def test_sets_further_in_are_found(paths: tuple[str, ...], given: str, message: str) -> None:
    draw(*paths)
    with pytest.raises(InputError, match=f"^source {given}: .*{message}"):
        PoisonDataModule(given, image_size=8)


def test_folders_in_class_folders_are_not_parts() -> None:
    draw("d/cat/train/0.png", "d/cat/test/1.png", "d/dog/train/0.png", "d/bullet_train/0.png", "d/test_tube/0.png")
    draw("d/truck/old/0.png", "d/truck/new/0.png")
    assert open_source("d").class_names == ("bullet_train", "cat", "dog", "test_tube", "truck")
    draw("one/7/0.png", "one/7/left/1.png", "one/7/right/2.png")
    draw("part/val/cat/0.png", "part/train/cat/0.png", "part/train/dog/0.png")
    assert labelled(open_source("part"), "test") == {"val/cat/0.png": 0}


def test_whole_numbers_written_as_floats_are_in_their_order() -> None:
    draw(*(f"d/{number}.png" for number in range(11)))
    write("d/labels.csv", "filename,label\n" + "".join(f"{number}.png,{number:.1f}\n" for number in range(11)))
    source = open_source("d")
    assert (source.numbered, source.num_classes) == (True, 11)
    assert labelled(source, "test") == {f"{number}.png": number for number in range(11)}
    write("d/labels.csv", "filename,label\n0.png,v1.0\n1.png,2.0\n")
    assert open_source("d").class_names == ("2.0", "v1.0")


@pytest.mark.parametrize("label", ["0.5", "1e-3", "1e400", "-.25"])
def test_fractions_are_not_classes(label: str) -> None:
    draw("d/0.png", "d/1.png")
    write("d/labels.csv", f"filename,label\n0.png,1.0\n1.png,{label}\n")
    with pytest.raises(InputError, match=f"^source d: d/labels.csv, line 3: the class {label} is not a whole number"):
        open_source("d").load("test", 8)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("labels.csv", "filename,label\na.png,cat\nb.png,dog\n"),
        ("labels.csv", "filename,label\r\n./a.png,cat\r\nb.png,dog\r\n"),
        ("labels.csv", "\ufeffid,breed\na,cat\nb,dog\n"),
        ("annotations.tsv", "label\timage\ncat\ta.png\ndog\tb.png\n"),
        ("anything.txt", "a.png cat\nb.png dog\n"),
        ("answers.csv", "photo,kind\na.png,cat\nb.png,dog\n"),
        ("metadata.csv", "file_name,width,label\na.png,8,cat\nb.png,8,dog\n"),
    ],
)
@pytest.mark.parametrize("inside", ["", "images/"])
def test_loose_images_beside_a_file(file: str, text: str, inside: str) -> None:
    draw(f"loose/{inside}a.png", f"loose/{inside}b.png")
    write(f"loose/{file}", text)
    write("loose/sample_submission.csv", "id,label\na,dog\nb,dog\n")
    write("loose/README.txt", "What there is to know\n")
    source = open_source("loose")
    assert source.class_names == ("cat", "dog")
    assert labelled(source, "test") == {f"{inside}a.png": 0, f"{inside}b.png": 1}
    assert not source.has("train")


def test_one_file_for_both_parts() -> None:
    names = [f"{part}/{number}" for part in ("train", "val") for number in range(150)]
    draw(*(f"both/{name}.png" for name in names))
    write("both/labels.csv", "id,label\n" + "".join(f"{n},{int(n.split('/')[1]) % 3}\n" for n in names))
    for part, split in (("train", "train"), ("val", "test")):
        assert labelled(open_source("both"), split) == {f"{part}/{n}.png": n % 3 for n in range(150)}


def test_names_with_and_without_an_ending() -> None:
    draw("loose/a.png", "loose/b.jpg", "loose/c.png")
    write("loose/labels.csv", "id,label\na,x\nb.jpg,y\nc,y\n")
    assert labelled(open_source("loose"), "test") == {"a.png": 0, "b.jpg": 1, "c.png": 1}


def test_links_between_classes_do_not_change_labels() -> None:
    draw("photos/cat/0.png", "photos/dog/0.png")
    Path("photos/cat/dogs").symlink_to(Path("photos/dog").resolve())
    Path("photos/all").symlink_to(Path("photos").resolve())
    assert labelled(open_source("photos"), "test") == {"cat/0.png": 0, "dog/0.png": 1}


def test_celeba_as_it_is_unpacked() -> None:
    draw("celeba/img_align_celeba/000001.jpg")
    write("celeba/list_attr_celeba.txt", "1\nSmiling Young\n000001.jpg 1 -1\n")
    with pytest.raises(InputError, match="40 attributes for each image, and no class: add a file labels.csv"):
        PoisonDataModule("celeba", image_size=8)


def test_files_that_name_the_parts_of_one_folder() -> None:
    draw("loose/images/a.png", "loose/images/b.png", "loose/images/c.png")
    write("loose/train.csv", "image,label\na,cat\nb,dog\n")
    write("loose/test.csv", "image,label\nc,dog\n")
    assert labelled(open_source("loose"), "train") == {"images/a.png": 0, "images/b.png": 1}
    assert labelled(open_source("loose"), "test") == {"images/c.png": 1}


def test_test_images_without_labels_are_left_out_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    draw("dogs/train/a.jpg", "dogs/train/b.jpg", "dogs/test/c.jpg")
    write("dogs/labels.csv", "id,breed\na,pug\nb,boxer\n")
    data = PoisonDataModule("dogs", image_size=8)
    assert (data.num_classes, data.labelled, data.trainable) == (2, False, True)
    assert labelled(open_source("dogs"), "train") == {"train/a.jpg": 1, "train/b.jpg": 0}
    (record,) = caplog.records
    assert record.getMessage().startswith("source dogs: dogs/test is left out, as its images have no labels: put ")


def test_missing_images_in_a_table_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    draw("loose/a.png", "loose/b.png")
    write("loose/labels.csv", "filename,label\na.png,cat\nb.png,dog\nc.png,dog\n")
    assert labelled(open_source("loose"), "test") == {"a.png": 0, "b.png": 1}
    (record,) = caplog.records
    assert record.getMessage().startswith("source loose: 1 left out, as they cannot be read: loose/c.png")


def test_loose_images_without_labels_are_not_a_labelled_source() -> None:
    draw("loose/a.png")
    with pytest.raises(InputError, match="source loose: the images have no labels: put the images of each class"):
        PoisonDataModule("loose", image_size=8)
    # Unlabeled images may have any layout.
    tiny_imagenet()
    assert len(open_source("tiny", parameter="data.unlabeled").load_unlabeled(8, 1, 0)) == 7


# Labels that count from 1


@pytest.mark.parametrize("count", [9, 10])
def test_arrays_whose_labels_count_from_1(count: int, caplog: pytest.LogCaptureFixture) -> None:
    labels = 1 + np.arange(40) % count
    np.savez("one.npz", x_test=np.zeros((40, 8, 8, 3), np.uint8), y_test=labels)
    PoisonDataModule("one.npz", unlabeled="procedural")
    (record,) = caplog.records
    assert f"source one.npz: the labels go from 1 to {count}, and none is 0" in record.getMessage()


def test_folders_whose_numbers_count_from_1(caplog: pytest.LogCaptureFixture) -> None:
    draw("digits/1/a.png", "digits/2/a.png", "digits/3/a.png")
    PoisonDataModule("digits", image_size=8, unlabeled="procedural")
    assert "the labels go from 1 to 3, and none is 0" in caplog.records[0].getMessage()
    caplog.clear()
    # Some classes may have no images.
    draw("some/4/a.png", "some/7/a.png")
    PoisonDataModule("some", image_size=8, unlabeled="procedural")
    assert not caplog.records


def test_arrays_whose_test_part_has_other_classes() -> None:
    pixels = np.zeros((4, 8, 8, 3), np.uint8)
    np.savez("other.npz", x_train=pixels, y_train=[0, 1, 0, 1], x_test=pixels, y_test=[1, 2, 1, 2])
    with pytest.raises(InputError, match="source other.npz: y_test has classes that y_train does not have: 2"):
        PoisonDataModule("other.npz")


def test_tiny_imagenet_without_the_classes_of_its_images_for_validation(caplog: pytest.LogCaptureFixture) -> None:
    tiny_imagenet()
    Path("tiny/val/val_annotations.txt").unlink()
    for read in (lambda: open_source("tiny").num_classes, lambda: PoisonDataModule("tiny", image_size=64)):
        with pytest.raises(InputError) as caught:
            read()
        assert str(caught.value) == (
            "source tiny: tiny/val/val_annotations.txt is missing, which lists the classes of the images in "
            "tiny/val/images"
        )
    assert not caplog.records
