"""Data sets in the help of verbs, the kinds and what each looks like. docs/data.md has the same drawing."""

KINDS = "visa, mvtec, btad, mpdd, mvtec2, ksdd2, dagm, realiad, meta, folder, manifest, elpv or textile"

DRAWINGS = """\
what --root holds, for each kind of data set (docs/data.md has more):

  folder    CATEGORY/good/*                  normal
            CATEGORY/TYPE OF DEFECT/*        defective
            CATEGORY/masks/TYPE OF DEFECT/*  masks, or masks/*; see below
  mvtec     CATEGORY/train/good/*            references are drawn from these
            CATEGORY/test/good/*
            CATEGORY/test/TYPE OF DEFECT/*
            CATEGORY/ground_truth/TYPE OF DEFECT/*_mask.png
  btad, mpdd  as mvtec, with ok and ko or with good and the types of defect
  mvtec2    CATEGORY/train/good/*
            CATEGORY/test_public/good/*      and bad/*
            CATEGORY/test_public/ground_truth/bad/*_mask.png
  ksdd2     train/10000.png, train/10000_GT.png; the same in test/
  dagm      Class1/Train/0576.PNG, Class1/Train/Label/0576_label.PNG; the same in Test/
  realiad   realiad_jsons/CATEGORY.json, realiad_1024/CATEGORY/...
  meta      meta.json: {"train": {CLASS: [...]}, "test": {CLASS: [{"img_path", "mask_path", "anomaly", ...}]}}
  visa      split_csv/1cls.csv and CATEGORY/Data/..., or the layout of mvtec
  manifest  a .csv or .jsonl file with image (or path, file), label, and maybe category, split, defect_type, mask
  elpv, textile  need no --root: they are packages of the extra demo

Folders named good, ok, normal, pass, non_defective or defect_free, in either case, hold normal pictures. A mask has
the name of its picture, alone or with _mask, _gt or _label behind it, in ground_truth/, gt/, mask(s)/ or label(s)/, or
lies beside the picture with one of these endings.
"""
