"""``winspect serve --product``: rows name the product as long as what it says decides."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

pytest.importorskip("fastapi", reason='the service needs: pip install "winspect[serve]"')
import timm_models
from miniature import part, save

from tests.service.test_good_samples import Served
from winspect.cli.main import build_parser
from winspect.cli.product_options import use_products
from winspect.cli.serve import backend_of, seed_product, settings_of
from winspect.errors import SettingsError
from winspect.product.recording import new_product, record
from winspect.service.http.app import create_app

MODEL = {"name": "local-dir:plain", "recipe": "memory", "settings": {"size": 64, "rotations": 2}, "precision": "fp32"}


@pytest.fixture
def line(tmp_path, monkeypatch) -> Path:
    """A folder with a small model, two good samples, and good pictures."""
    monkeypatch.chdir(tmp_path)
    timm_models.save_folder("vit_tiny_patch16_224", {"depth": 3, "img_size": 64}, tmp_path / "plain")
    for name, seeds in (("references", range(2)), ("good", range(10, 19))):
        for seed in seeds:
            save(tmp_path / f"{name}/{seed}.png", part(seed, defective=False)[0])
    return tmp_path


@pytest.fixture
def nut(line):
    """A product, not yet calibrated."""
    entries = {"name": "PN 1", "class": "nut", "model": MODEL, "references": {"files": ["references"]}}
    return new_product(line / "nut.toml", entries, verb="product new")


def options(*words: object):
    return build_parser().parse_args(["serve", "--port", "0", "--data", "data", *map(str, words)])


class ServedProducts(Served):
    """A service of products, as the command line starts it."""

    def __init__(self, *files: str):
        args = options("--device", "cpu", "--engine", "torch", "--product", *files)
        products = use_products(args)
        settings = settings_of(args)
        self.loop = asyncio.new_event_loop()
        self.run = self.loop.run_until_complete
        self.backend = backend_of(args, settings)
        for product in products:
            seed_product(self.backend, product)
        transport = httpx.ASGITransport(create_app(self.backend, settings))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://service")


def test_rows_name_the_product_until_somebody_changes_what_it_says(nut, cli):
    new = Path("good/10.png").read_bytes()
    run = ("--device", "cpu", "--engine", "torch", "--max-false-alarms", "0.1")
    assert cli("calibrate", "good", "--product", "nut.toml", *run).code == 0
    mark = {"name": "PN 1", "revision": 2}
    with ServedProducts("nut.toml") as served:
        row = served.score(new, "nut")
        assert row["product"] == mark and row["verdict"] is not None and row["shots"] == 2
        assert served.score(new, "nut", threshold="0.4").get("product") is None
        assert served.predict(new, "bolt").status_code == 404
        served.refer(("other.png", Path("good/11.png").read_bytes()), name="nut")
        assert served.score(new, "nut").get("product") is None
    with ServedProducts("nut.toml") as again:
        assert again.score(new, "nut")["product"] == mark


def test_two_products_of_one_model_are_served_beside_each_other(nut, line):
    new_product(line / "bolt.toml", {**nut.document(), "name": "PN 2", "class": "bolt"}, verb="product new")
    new = Path("good/10.png").read_bytes()
    with ServedProducts("nut.toml", "bolt.toml") as served:
        assert served.score(new, "nut")["product"] == {"name": "PN 1", "revision": 1}
        assert served.score(new, "bolt")["product"] == {"name": "PN 2", "revision": 1}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "pn 1"}, "nut.toml and other/b.toml have the same name"),
        ({"class": "NUT"}, "nut.toml and b.toml have the same class"),
        ({"model": {**MODEL, "settings": {"size": 96}}}, "need different settings"),
        ({"drift": {"rate": 0.1}}, "need different drift"),
    ],
)
def test_products_that_one_service_cannot_serve(nut, line, changes, words):
    folder = line / "other" if "name" in changes else line  # in one folder they are refused before
    folder.mkdir(exist_ok=True)
    for name in ("plain", "references"):
        if not (folder / name).exists():
            (folder / name).symlink_to(line / name)
    entries = {**nut.document(), "name": "PN 2", "class": "bolt", **changes}
    new_product(folder / "b.toml", entries, verb="product new")
    with pytest.raises(SettingsError, match=words):
        use_products(options("--product", "nut.toml", (folder / "b.toml").relative_to(line)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--class", "bolt"), "--class bolt: the products serve nut"),
        (("--reference", "good"), "--reference: product 'PN 1' revision 1"),
        (("--calibration", "cal.json"), "--calibration: product 'PN 1' revision 1"),
        (("--model", "winspect-tiny"), "--model winspect-tiny: product 'PN 1'"),
        (("--review", "0.2"), "--review 0.2: product 'PN 1' revision 1 .* has none"),
    ],
)
def test_options_that_contradict_the_products(nut, words, message):
    with pytest.raises(SettingsError, match=message):
        use_products(options("--product", "nut.toml", *words))


def test_no_packed_product_and_none_that_has_changed(nut):
    with pytest.raises(SettingsError, match="a service needs the product's TOML file"):
        use_products(options("--product", "nut.winspect"))
    record(nut.path, verb="test", edit=lambda text: text.update({"class": "hex nut"}))
    nut.path.write_text(nut.path.read_text().replace("hex nut", "nut"))
    with pytest.raises(SettingsError, match="class: hex nut -> nut"):
        use_products(options("--product", "nut.toml"))
