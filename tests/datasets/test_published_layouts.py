"""Published data sets as their makers lay them out, in miniature, and the names that people give to masks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from winspect.cli.data_sets import DRAWINGS, KINDS
from winspect.datasets import KINDS as KNOWN
from winspect.datasets import load_mask, open_dataset
from winspect.errors import SourceError

ROOT = Path(__file__).parents[2]


def items_of(dataset, **chosen):
    """Split, label and type of each picture, with its mask's name."""
    return {
        item.path.relative_to(dataset.root).as_posix(): (
            item.split,
            item.defect_type,
            item.mask and item.mask.relative_to(dataset.root).as_posix(),
        )
        for item in dataset.select(**chosen)
    }


def test_btad(tmp_path, mini):
    """The three products; pictures and masks of different formats."""
    for product, ending in (("01", "bmp"), ("02", "png"), ("03", "bmp")):
        for folder in ("train/ok", "test/ok", "test/ko"):
            mini.picture(tmp_path / product / folder / f"0000.{ending}")
        mini.mask(tmp_path / product / "ground_truth/ko" / ("0000.bmp" if product == "03" else "0000.png"))
    dataset = open_dataset("btad", tmp_path)
    assert (dataset.name, dataset.categories) == ("btad", ("01", "02", "03"))
    assert items_of(dataset, category="03") == {
        "03/train/ok/0000.bmp": ("train", "good", None),
        "03/test/ko/0000.bmp": ("test", "ko", "03/ground_truth/ko/0000.bmp"),
        "03/test/ok/0000.bmp": ("test", "good", None),
    }


def test_mpdd(tmp_path, mini):
    for folder in ("train/good", "test/good", "test/parts_mismatch"):
        mini.picture(tmp_path / "connector" / folder / "000.png")
    mini.mask(tmp_path / "connector/ground_truth/parts_mismatch/000_mask.png")
    dataset = open_dataset("mpdd", tmp_path)
    assert items_of(dataset, label="anomalous") == {
        "connector/test/parts_mismatch/000.png": (
            "test",
            "parts_mismatch",
            "connector/ground_truth/parts_mismatch/000_mask.png",
        )
    }


@pytest.mark.parametrize("nested", [False, True])
def test_mvtec_ad_2(tmp_path, mini, nested, caplog):
    """The public part; an archive may put a category's folder into one of its name."""
    can = tmp_path / "can" / "can" if nested else tmp_path / "can"
    for folder in ("train/good", "validation/good", "test_public/good", "test_private", "test_private_mixed"):
        mini.picture(can / folder / "000_regular.png")
    for name in ("000_overexposed", "001_shift_1"):
        mini.picture(can / f"test_public/bad/{name}.png")
        mini.mask(can / f"test_public/ground_truth/bad/{name}_mask.png")
    dataset = open_dataset("mvtec2", tmp_path)
    assert dataset.categories == ("can",)
    assert "3 pictures left out, as" in caplog.text  # validation and private
    where = can.relative_to(tmp_path).as_posix()
    test = f"{where}/test_public"
    assert items_of(dataset) == {
        f"{where}/train/good/000_regular.png": ("train", "good", None),
        f"{test}/good/000_regular.png": ("test", "good", None),
        **{
            f"{where}/test_public/bad/{name}.png": (
                "test",
                "bad",
                f"{where}/test_public/ground_truth/bad/{name}_mask.png",
            )
            for name in ("000_overexposed", "001_shift_1")
        },
    }


def test_kolektor_sdd2(tmp_path, mini, caplog):
    """A mask beside every picture; it says which is defective. What has none, as a stray copy, is left out."""
    mini.mask(tmp_path / "train/10001_GT (copy).png")
    for split in ("train", "test"):
        for number, values in ((10000, (0, 0)), (10001, (255, 255))):
            mini.picture(tmp_path / split / f"{number}.png")
            mini.mask(tmp_path / split / f"{number}_GT.png", values=values)
    dataset = open_dataset("ksdd2", tmp_path)
    assert dataset.categories == ("surface",)
    assert "1 picture left out, as" in caplog.text and "10001_GT (copy).png" in caplog.text
    assert items_of(dataset) == {
        "train/10000.png": ("train", "good", None),
        "train/10001.png": ("train", "defect", "train/10001_GT.png"),
        "test/10000.png": ("test", "good", None),
        "test/10001.png": ("test", "defect", "test/10001_GT.png"),
    }
    assert [item.path.name for item in dataset.reference_pool("surface")] == ["10000.png"]


def test_dagm(tmp_path, mini):
    for category in ("Class1", "Class10"):
        for split in ("Train", "Test"):
            for number in ("0001", "0002"):
                mini.picture(tmp_path / category / split / f"{number}.PNG")
            mini.mask(tmp_path / category / split / "Label/0002_label.PNG")
            (tmp_path / category / split / "Label/Labels.txt").write_text("1\n")
    dataset = open_dataset("dagm", tmp_path)
    assert dataset.categories == ("Class1", "Class10")
    assert items_of(dataset, category="Class10") == {
        "Class10/Train/0001.PNG": ("train", "good", None),
        "Class10/Train/0002.PNG": ("train", "defect", "Class10/Train/Label/0002_label.PNG"),
        "Class10/Test/0001.PNG": ("test", "good", None),
        "Class10/Test/0002.PNG": ("test", "defect", "Class10/Test/Label/0002_label.PNG"),
    }


def make_real_iad(root, mini, *, jsons="realiad_jsons", size="1024"):
    """Two categories; pictures and masks below a prefix, five cameras in the names."""
    for category in ("audiojack", "pcb"):
        good, bad = (
            f"OK/S0001/{category}_0001_OK_C1_20231021123345.jpg",
            f"NG/BX/S0002/{category}_0002_NG_BX_C1_2023.jpg",
        )
        for name in (good, bad):
            mini.picture(root / f"realiad_{size}" / category / name)
        mask = bad.replace(".jpg", ".png")
        mini.mask(root / f"realiad_{size}" / category / mask)
        row = {"category": category, "anomaly_class": "OK", "image_path": good, "mask_path": None}
        listing = {
            "meta": {"normal_class": "OK", "pre_transform": False, "prefix": f"{category}/"},
            "train": [row],
            "test": [row | {"anomaly_class": "BX", "image_path": bad, "mask_path": mask}],
        }
        (root / jsons).mkdir(parents=True, exist_ok=True)
        (root / jsons / f"{category}.json").write_text(json.dumps(listing))
    return root


@pytest.mark.parametrize("jsons", ["realiad_jsons", "realiad_jsons/realiad_jsons"])
def test_real_iad(tmp_path, mini, jsons):
    make_real_iad(tmp_path, mini, jsons=jsons)
    (tmp_path / "realiad_256").mkdir()
    dataset = open_dataset("realiad", tmp_path, categories=["pcb"])
    where = "realiad_1024/pcb/"
    assert items_of(dataset) == {
        f"{where}OK/S0001/pcb_0001_OK_C1_20231021123345.jpg": ("train", "good", None),
        f"{where}NG/BX/S0002/pcb_0002_NG_BX_C1_2023.jpg": (
            "test",
            "BX",
            f"{where}NG/BX/S0002/pcb_0002_NG_BX_C1_2023.png",
        ),
    }
    assert open_dataset("realiad", tmp_path).categories == ("audiojack", "pcb")


def test_other_splits_of_real_iad_and_what_is_wrong_with_them(tmp_path, mini):
    make_real_iad(tmp_path, mini, jsons="realiad_jsons/realiad_jsons_sv", size="512")
    single = tmp_path / "realiad_jsons/realiad_jsons_sv"
    assert open_dataset("realiad", single).missing() == ()
    file = single / "pcb.json"
    for text, message in (
        ("{", "pcb.json: not JSON"),
        ("[]", "pcb.json: got list, need an object"),
        ("{}", "pcb.json: got nothing, need train and test"),
        ('{"test": {}}', "pcb.json, test: got dict, need a list of pictures"),
        ('{"test": [{"image_path": "a.jpg"}]}', "pcb.json, test, entry 0: no anomaly_class"),
        ('{"test": [{"anomaly_class": "OK"}]}', "pcb.json, test, entry 0: no path of the picture"),
        ('{"test": [{"anomaly_class": "OK", "image_path": "a.jpg"}]}', "none of the 1 pictures that it lists is there"),
    ):
        file.write_text(text)
        with pytest.raises(SourceError, match=message):
            open_dataset("realiad", single, categories=["pcb"])


def test_meta_json(tmp_path, mini):
    """The lists of AnomalyCLIP and its successors: no mask is an empty text or a folder, splits in either case."""
    for name in (
        "cable/train/good/000.png",
        "cable/test/good/000.png",
        "cable/test/bent/000.png",
        "cable/test/x/0.png",
    ):
        mini.picture(tmp_path / name)
    mini.mask(tmp_path / "cable/ground_truth/bent/000_mask.png")

    def row(name, anomaly, specie="good", mask=""):
        return {"img_path": name, "mask_path": mask, "cls_name": "cable", "specie_name": specie, "anomaly": anomaly}

    rows = [
        row("cable/test/good/000.png", 0, mask="cable/ground_truth"),
        row("cable\\test\\bent\\000.png", 1, "bent", "cable/ground_truth/bent/000_mask.png"),
        row("cable/test/x/0.png", 1, "", "cable/ground_truth"),
    ]
    meta = {"train": {"cable": [row("cable/train/good/000.png", 0)]}, "Test": {"cable": rows}}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    dataset = open_dataset("meta", tmp_path)
    assert items_of(dataset) == {
        "cable/train/good/000.png": ("train", "good", None),
        "cable/test/good/000.png": ("test", "good", None),
        "cable/test/bent/000.png": ("test", "bent", "cable/ground_truth/bent/000_mask.png"),
        "cable/test/x/0.png": ("test", "defect", None),
    }
    assert open_dataset("meta", tmp_path / "meta.json").items == dataset.items
    (tmp_path / "meta.json").write_text(json.dumps({"test": {"cable": [row("cable/test/x/0.png", "maybe")]}}))
    with pytest.raises(SourceError, match=r"meta.json, test, cable, entry 0: anomaly is 'maybe', need 0 or 1"):
        open_dataset("meta", tmp_path)


# Masks by their usual names


def fill(root, mini, *, good="good", masks=None):
    """A category of plain folders: two types of defect, the masks as ``masks`` names them."""
    for name in (f"{good}/0.png", f"{good}/1.png", "dent/2.png", "scratch/3.png"):
        mini.picture(root / name)
    for name in masks or ():
        mini.mask(root / name)
    return root


@pytest.mark.parametrize(
    "masks",
    [
        ["masks/dent/2.png", "masks/scratch/3.png"],
        ["mask/2.png", "mask/3.png"],
        ["GT/dent/2_gt.png", "GT/scratch/3_GT.png"],
        ["ground_truth/2_mask.png", "ground_truth/3_Mask.bmp"],
        ["labels/2_label.png", "labels/3_label.png"],
        ["label/2.png", "label/3.png"],
        ["dent/masks/2.png", "scratch/masks/3.png"],
        ["dent/2_mask.png", "scratch/3_mask.png"],
        ["dent/2-gt.png", "scratch/3-GT.png"],
    ],
    ids=lambda masks: masks[0],
)
def test_masks_are_masks_and_never_a_type_of_defect(tmp_path, mini, masks):
    fill(tmp_path / "bolt", mini, masks=masks)
    dataset = open_dataset("folder", tmp_path)
    assert [item.defect_type for item in dataset.items] == ["dent", "good", "good", "scratch"]
    assert [item.mask for item in dataset.items if item.is_anomalous] == [tmp_path / "bolt" / name for name in masks]
    assert load_mask(dataset.items[0], mini.size_wh).sum() == 6


def test_a_type_of_defect_that_is_called_label(tmp_path, mini):
    """With masks of its own it is a type: a bottle's label may be torn."""
    for name in ("train/good/0.png", "test/good/0.png", "test/label/0.png"):
        mini.picture(tmp_path / "bottle" / name)
    mini.mask(tmp_path / "bottle/ground_truth/label/0_mask.png")
    (item,) = open_dataset("mvtec", tmp_path).select(label="anomalous")
    assert (item.defect_type, item.mask) == ("label", tmp_path / "bottle/ground_truth/label/0_mask.png")


def test_a_mask_of_two_pictures(tmp_path, mini):
    fill(tmp_path / "bolt", mini, masks=["masks/2.png"])
    mini.picture(tmp_path / "bolt/scratch/2.png")
    with pytest.raises(SourceError, match=r"masks/2.png: the mask of .*dent/2.png and of .*scratch/2.png"):
        open_dataset("folder", tmp_path)


@pytest.mark.parametrize("name", ["good", "OK", "Normal", "pass", "non_defective", "Non-Defective", "defect free"])
def test_folders_of_normal_pictures(tmp_path, mini, name):
    fill(tmp_path / "plain/bolt", mini, good=name)
    assert [item.label for item in open_dataset("folder", tmp_path / "plain").items].count("normal") == 2
    for folder in (f"train/{name}", f"test/{name}", "test/dent"):
        mini.picture(tmp_path / "split/bolt" / folder / "0.png")
    assert [item.label for item in open_dataset("mvtec", tmp_path / "split").select(split="test")].count("normal") == 1


# Another layout than the one asked for


def trees(root, mini):
    """A miniature of each layout, by kind."""
    fill(root / "folder/bolt", mini)
    for name in ("train/good/0.png", "test/good/0.png", "test/dent/0.png"):
        mini.picture(root / "mvtec/bolt" / name)
    for name in ("train/good/0.png", "test_public/good/0.png", "test_public/bad/0.png"):
        mini.picture(root / "mvtec2/can" / name)
    for split in ("train", "test"):
        mini.picture(root / "ksdd2" / split / "1.png")
        mini.mask(root / "ksdd2" / split / "1_GT.png")
        mini.picture(root / "dagm/Class1" / split.title() / "1.PNG")
        mini.mask(root / "dagm/Class1" / split.title() / "Label/1_label.PNG")
    make_real_iad(root / "realiad", mini)
    mini.picture(root / "meta/a.png")
    (root / "meta/meta.json").write_text('{"test": {"nut": [{"img_path": "a.png", "anomaly": 0}]}}')
    return root


def test_the_layout_that_was_meant_is_named(tmp_path, mini):
    trees(tmp_path, mini)
    for kind in ("folder", "mvtec", "mvtec2", "ksdd2", "dagm", "realiad", "meta"):
        assert open_dataset(kind, tmp_path / kind).items, kind
        for asked in {"folder", "mvtec", "mvtec2", "dagm", "realiad", "meta"} - {kind}:
            if (asked, kind) == ("dagm", "ksdd2"):
                continue  # their folders are alike
            with pytest.raises(SourceError, match=f"this looks like --dataset {kind}$"):
                open_dataset(asked, tmp_path / kind)
    with pytest.raises(SourceError, match=r"train/ is a split, not a category: .*looks like --dataset mvtec$|test/ is"):
        open_dataset("folder", tmp_path / "mvtec/bolt")


def test_a_wrong_category_is_not_another_layout(tmp_path, mini):
    trees(tmp_path, mini)
    shutil.copy(tmp_path / "meta/meta.json", tmp_path / "mvtec/meta.json")
    with pytest.raises(SourceError, match=r"got category 'nut', but it has: bolt$"):
        open_dataset("mvtec", tmp_path / "mvtec", categories=["nut"])


def test_help_and_page_draw_every_kind():
    page = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    assert DRAWINGS in page
    assert sorted(KINDS.replace(" or ", ", ").split(", ")) == sorted(KNOWN)
    for kind in KNOWN:
        assert f" {kind}" in DRAWINGS, kind
        assert f"`{kind}`" in page or f"--dataset {kind}" in page, kind


def test_masks_of_other_sizes_of_grey(tmp_path):
    """What a data set's masks hold besides 0 does not matter to the label."""
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / name / "1.png")
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / name / "1_GT.png")
    assert {item.label for item in open_dataset("ksdd2", tmp_path).items} == {"anomalous"}
