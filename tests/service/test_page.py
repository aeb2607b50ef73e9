"""The page in a real browser: what a user does, and what is seen for it."""

# ruff: noqa: F401, F811  (fixtures are imported, and then asked for by name)
from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image
from service.browser import (
    backend,
    choose,
    context,
    drop,
    expect,
    files,
    grey,
    large,
    name_class,
    needs_chromium,
    opened,
    page,
    score,
    served,
    service,
)

from winspect.calibration.conformal import needed_pictures
from winspect.engines.gate import calibration_pictures, gate_pictures
from winspect.pictures import heatmaps
from winspect.service.contract import StoredPicture
from winspect.service.http.page import SAMPLES, page_files, sample_files

KEY = "a key of more than 16 letters"
PIXEL = "([x, y]) => [...document.querySelector('figure canvas').getContext('2d').getImageData(x, y, 1, 1).data]"
ATTACK = '<img src=x onerror="window.attacked=1">'
pytestmark = needs_chromium


# -- files


def test_page_is_served_with_a_strict_policy(page, service):
    response = page.request.get(f"{service.url}/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for name, content in page_files().items():
        answer = page.request.get(f"{service.url}/page/{name}")
        assert answer.body() == content and answer.headers["x-content-type-options"] == "nosniff"
        assert not re.search(rb"https?://(?!www\.w3\.org)", content), "nothing comes from elsewhere"
    assert not re.search(rb"<script(?![^>]*src=)|\son\w+=|\sstyle=", page_files()["index.html"])
    missing = page.request.get(f"{service.url}/page/..%2Fpage.py")
    assert missing.status == 404 and missing.json()["error"]["type"] == "NotFound"


def test_samples_are_the_gates_pictures(page, service):
    listed = page.request.get(f"{service.url}/v1/samples").json()["samples"]
    assert {one["name"] for one in listed} == set(SAMPLES)
    judged, is_defective = gate_pictures()
    known = [*zip(judged, is_defective, strict=True), *((picture, None) for picture in calibration_pictures())]
    for one in listed:
        content = page.request.get(f"{service.url}/v1/samples/{one['name']}").body()
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.format == "JPEG" and picture.size == (240, 240)
            rgb = np.asarray(picture).astype(float)
        differences = [np.abs(rgb - other).mean() for other, _ in known]
        assert min(differences) < 3, "it is one of them, but for its compression"
        assert known[int(np.argmin(differences))][1] in (one["kind"] == "defective", None)
    assert page.request.get(f"{service.url}/v1/samples/x.jpg").status == 404


def test_words_and_colours_are_the_packages_own(page):
    got = page.evaluate(
        """async () => {
            const words = await import("/page/words.js");
            const heat = await import("/page/heat.js");
            const values = Float32Array.from([0.1, 0.2, 0.2, 0.3, 0.9, 0.25]);
            return {
                needed: [0.1, 0.05, 0.01, 0.3, 0.001, 0.07].map(words.neededPictures),
                shares: [0.01, 0.05, 0.03, 0.015, 0.3].map(words.share),
                rates: [1, 2.9, 0.1].map(words.rateOf),
                colours: [...heat.colourTable()],
                range: heat.stretchedRange({ values }),
                narrow: heat.stretchedRange({ values: values.fill(0.5) }),
            };
        }"""
    )
    assert got["needed"] == [needed_pictures(rate) for rate in (0.1, 0.05, 0.01, 0.3, 0.001, 0.07)]
    assert got["shares"] == ["1 in 100", "1 in 20", "3 in 100", "15 in 1000", "30 in 100"]
    assert got["rates"] == [0.01, 0.029, 0.001]
    levels = np.linspace(0, 1, 256, dtype=np.float32)[None]
    over_black, over_white = (
        heatmaps.heat_overlay(np.full((1, 256, 3), ground, np.uint8), levels, (0, 1)).astype(float)
        for ground in (0, 255)
    )
    table = np.array(got["colours"], float).reshape(1, 256, 4)
    opacity = 0.72 * table[..., 3:] / 255  # the slider's own place
    np.testing.assert_allclose(table[..., :3] * opacity, over_black, atol=2)
    np.testing.assert_allclose(table[..., :3] * opacity + 255 * (1 - opacity), over_white, atol=2)
    values = np.array([0.1, 0.2, 0.2, 0.3, 0.9, 0.25], np.float32)
    assert got["range"][1] == pytest.approx(heatmaps.heat_range(values)[1])
    assert 0.2 <= got["range"][0] <= 0.25  # either middle of an even number
    assert got["narrow"] == pytest.approx(heatmaps.heat_range(np.full(6, 0.5)))


# -- judging


def test_sample_is_judged_with_one_click(page, backend):
    expect(page.locator("#state")).to_have_text("Ready")
    expect(page.locator("#model")).to_contain_text("fake")
    page.get_by_role("button", name="Judge a defective metal nut").click()
    with Image.open(io.BytesIO(sample_files()["metal-nut-defective.jpg"])) as picture:
        told = float(np.asarray(picture.convert("RGB")).mean()) / 255
    expect(score(page)).to_have_text(f"{told:.2f}")
    expect(page.locator("#class")).to_have_value("metal nut")
    expect(page.locator("figure .verdict")).to_have_text("No threshold yet")
    expect(page.locator("figcaption")).to_have_text("Zero-shot")
    expect(page.get_by_role("meter")).to_have_attribute("aria-valuenow", f"{told:.3f}")
    expect(page.locator("#announce")).to_have_text(f"metal-nut-defective.jpg: score {told:.2f}")
    assert backend.asked[-1][:2] == ("metal-nut-defective.jpg", "metal nut")


def test_drop_and_paste(page):
    drop(page, "drop", "drop", dropped=51)
    expect(score(page)).to_have_text("0.20")
    expect(page.locator("#name")).to_have_text("dropped.png")
    drop(page, "paste", "paste", pasted=204)
    expect(page.locator("#name")).to_have_text("pasted.png")
    expect(score(page)).to_have_text("0.80")
    drop(page, "dragenter", "drop", place="references", good=10)
    expect(page.locator("#references")).to_have_class("card dropping")
    drop(page, "drop", "drop", place="references", good=10)
    expect(page.locator("#references-count")).to_have_text("1 good sample")
    expect(page.locator(".dropping")).to_have_count(0)
    expect(page.locator(".thumb")).to_have_count(2)


def test_dropped_folders_give_the_pictures_in_them(page):
    names = page.evaluate(
        """async () => {
            const { dropped } = await import("/page/files.js");
            const file = (name) => ({ isFile: true, file: (give) => give(new File(["x"], name)) });
            const folder = (...batches) => ({
                isDirectory: true,
                createReader: () => ({ readEntries: (give) => give(batches.shift() ?? []) }),
            });
            const inner = folder([file("c.tiff")]);
            const entries = [folder([file("a.png"), file("notes.txt")], [file("B.JPG"), inner]), file("d.bmp")];
            const items = entries.map((entry) => ({ webkitGetAsEntry: () => entry }));
            return (await dropped({ items, files: [] })).map(({ name }) => name);
        }"""
    )
    assert names == ["a.png", "B.JPG", "c.tiff", "d.bmp"]


def test_strip_arrow_keys_and_clear(page):
    choose(page, *files(a=0, b=51, c=204, d=255))
    labels = page.locator(".thumb .label")
    expect(labels).to_have_text(["0.00", "0.20", "0.80", "1.00"])
    expect(page.locator("#name")).to_have_text("a.png")
    page.get_by_role("button", name="b.png, score 0.20").click()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#name")).to_have_text("c.png")
    expect(score(page)).to_have_text("0.80")
    expect(page.locator(".thumb[aria-current=true]")).to_have_attribute("title", "c.png")
    page.click("#clear")
    expect(page.locator("#empty")).to_be_visible()
    expect(page.locator(".thumb")).to_have_count(0)
    expect(page.locator("#choose")).to_be_focused()


def test_many_pictures_get_their_maps_when_looked_at(page, backend):
    choose(page, *files(**{f"p{number}": number for number in range(26)}))
    expect(page.locator(".thumb .label", has_text="…")).to_have_count(0)
    assert sum(maps for *_, maps in backend.asked) == 1  # only the picture that is looked at
    expect(page.locator("figure canvas")).to_be_visible()
    page.locator(".thumb").nth(25).click()
    expect(page.locator("figure canvas")).to_be_visible()
    assert sum(maps for *_, maps in backend.asked) == 2


def test_heat_map_opacity_range_and_pointer(page):
    lit = Image.new("RGB", (60, 40), (0, 0, 0))
    lit.paste((230, 230, 230), (30, 0, 60, 40))  # the fake's map is the brightness: 0 on the left, 0.9 on the right
    file = io.BytesIO()
    lit.save(file, format="PNG")
    choose(page, {"name": "lit.png", "mimeType": "image/png", "buffer": file.getvalue()})
    canvas = page.locator("figure canvas")
    expect(canvas).to_be_visible()
    assert (page.evaluate(PIXEL, [5, 20])[3], page.evaluate(PIXEL, [55, 20])[3]) == (0, 255)
    before = page.evaluate(PIXEL, [55, 20])
    page.locator("#opacity").fill("10")
    expect(canvas).to_have_css("opacity", "0.1")
    expect(page.locator("#legend-high")).to_have_text("1")
    page.check("#stretch")
    expect(page.locator("#legend-high")).to_have_text("0.90")
    assert page.evaluate(PIXEL, [55, 20]) == [150, 0, 80, 255] != before
    box = page.locator("figure .stack").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.5)
    expect(page.locator("#legend-text")).to_have_text("0.90 here")
    page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] * 0.5)
    expect(page.locator("#legend-text")).to_have_text("0.00 here")
    page.mouse.move(5, 5)
    expect(page.locator("#legend-text")).to_have_text("how anomalous each place is")


def test_boxes_of_defects_lie_over_the_picture(page):
    def answer(route):
        response = route.fetch()
        document = response.json()
        document["results"][0] |= {
            "verdict": "anomalous",
            "threshold": 0.1,
            "boxes": [[6, 4, 30, 20], [40, 30, 48, 36]],
        }
        route.fulfill(response=response, json=document)

    page.route("**/v1/predict", answer)
    file = io.BytesIO()
    Image.new("RGB", (60, 40), (90, 90, 90)).save(file, format="PNG")
    choose(page, {"name": "boxed.png", "mimeType": "image/png", "buffer": file.getvalue()})
    expect(page.locator("figure .hint")).to_have_text("2 regions marked")
    lines = page.locator("figure .boxes .line")
    expect(lines).to_have_count(2)
    stack, box = page.locator("figure .stack").bounding_box(), lines.first.bounding_box()
    assert box["x"] - stack["x"] == pytest.approx(stack["width"] * 6 / 60, abs=3)
    assert box["y"] - stack["y"] == pytest.approx(stack["height"] * 4 / 40, abs=3)
    assert box["width"] == pytest.approx(stack["width"] * 24 / 60, abs=5)
    page.unroute("**/v1/predict")
    choose(page, *files(clean=51))
    expect(lines).to_have_count(0)


def test_bad_picture_among_good_ones(page):
    broken = {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b"no picture"}
    choose(page, broken, *files(fine=51))
    expect(page.locator("figure .error")).to_contain_text("broken.jpg: not a picture")
    expect(page.locator(".thumb .label")).to_have_text(["failed", "0.20"])
    expect(page.locator("figure .again")).to_be_hidden()
    page.locator(".thumb").nth(1).click()
    expect(score(page)).to_have_text("0.20")
    expect(page.locator("figure .error")).to_be_hidden()


def test_picture_that_only_the_service_can_show(page):
    choose(page, {"name": "scan.tif", "mimeType": "image/tiff", "buffer": grey(51, kind="TIFF")})
    expect(score(page)).to_have_text("0.20")
    expect(page.locator("figure .hint")).to_contain_text("service's own picture")
    expect(page.locator("figure img")).to_be_visible()
    assert page.evaluate("document.querySelector('figure img').naturalWidth") == 60


def test_upload_beyond_the_limit(page):
    choose(page, large("large.png"), *files(small=51))
    expect(page.locator("figure .error")).to_contain_text("larger than 1 MB")
    page.locator(".thumb").nth(1).click()
    expect(score(page)).to_have_text("0.20")


def test_unknown_words_of_a_class_are_told_at_the_class(page):
    name_class(page, "../../x")
    expect(page.locator("#class-error")).to_contain_text("looks like a path")
    expect(page.locator("#class")).to_have_attribute("aria-invalid", "true")
    name_class(page, "candle")
    expect(page.locator("#class-error")).to_be_hidden()


def test_another_class_judges_again(page, backend):
    backend.stored["candle"] = [StoredPicture("good.png", "0" * 64, 1)]
    choose(page, *files(part=51))
    expect(score(page)).to_have_text("0.20")
    name_class(page, "candle")
    expect(score(page)).to_have_text("0.10")
    expect(page.locator("figcaption")).to_have_text("With 1 reference")
    assert [key for _, key, _, _ in backend.asked] == ["object", "candle"]


def test_the_class_holds_as_it_is_typed(page, backend):
    page.type("#class", "candle")  # no Enter, and the field is not left
    drop(page, "drop", "drop", part=51)
    expect(score(page)).to_have_text("0.20")
    assert {key for _, key, _, _ in backend.asked} == {"candle"}
    backend.stored["metal nut"] = [StoredPicture("good.png", "0" * 64, 1)]
    page.fill("#class", "metal nut")
    expect(page.locator("figcaption")).to_have_text("With 1 reference")  # asked after the pause
    assert {key for _, key, _, _ in backend.asked} == {"candle", "metal nut"}


def test_service_for_some_classes(context, tmp_path):
    with served(tmp_path, classes=("metal nut",)) as some, opened(context, some.url) as page:
        expect(page.locator("#class")).to_have_value("metal nut")
        expect(page.locator("#class-error")).to_be_hidden()
        name_class(page, "candle")
        expect(page.locator("#class-error")).to_contain_text("'candle' is not served")


# -- the service's state


def test_busy_service_is_asked_again(page, backend):
    backend.busy = 1
    choose(page, *files(part=51))
    expect(page.locator("figure .note")).to_have_text("The service is busy; trying again in 1 s")
    expect(score(page)).to_have_text("0.20")
    assert backend.busy == 0


def test_loading_service(context, service):
    service.backend.reset()
    service.backend.now = "loading"
    with opened(context, service.url) as page:
        expect(page.locator("#state")).to_have_text("Loading the model…")
        choose(page, *files(part=51))
        expect(page.locator("figure .note")).to_contain_text("not ready yet")
        service.backend.now = "ready"
        expect(page.locator("#state")).to_have_text("Ready")
        expect(score(page)).to_have_text("0.20")


def test_service_that_is_gone_and_try_again(page):
    expect(page.locator("#state")).to_have_text("Ready")
    page.route("**/v1/predict", lambda route: route.abort())
    choose(page, *files(part=51))
    expect(page.locator("figure .error")).to_contain_text("does not answer")
    page.unroute("**/v1/predict")
    page.click("figure .again")
    expect(score(page)).to_have_text("0.20")


def test_key_is_asked_for_only_when_wanted(context, page, tmp_path):
    expect(page.locator("#state")).to_have_text("Ready")
    expect(page.locator("#key")).to_be_hidden()
    (tmp_path / "keys").write_text(KEY + "\n")
    with served(tmp_path, api_key_file=tmp_path / "keys") as closed, opened(context, closed.url) as locked:
        expect(locked.locator("#key")).to_be_visible()
        locked.get_by_label("This service asks for an API key").fill("another one that is wrong")
        locked.keyboard.press("Enter")
        expect(locked.locator("#key-note")).to_have_text("The service does not know that key.")
        locked.get_by_label("This service asks for an API key").fill(KEY)
        locked.keyboard.press("Enter")
        expect(locked.locator("#samples img[src]")).to_have_count(len(SAMPLES))
        choose(locked, *files(part=51))
        expect(score(locked)).to_have_text("0.20")
        expect(locked.locator("#key")).to_be_hidden()
        kept = locked.evaluate("[Object.values(sessionStorage), localStorage.length, document.cookie]")
        assert kept == [[KEY], 0, ""]


# -- hostile names, access, devices


def test_names_cannot_run_anything(page, backend):
    attack = {"name": f"{ATTACK}.png", "mimeType": "image/png", "buffer": grey(51)}
    name_class(page, ATTACK)
    choose(page, attack, {**attack, "buffer": b"broken"})
    page.set_input_files("#references-files", [attack, {**attack, "buffer": b"broken"}])
    expect(page.locator("#references-error")).to_contain_text("not a picture")
    expect(page.locator("#name")).to_have_text(f"{ATTACK}.png")
    page.locator(".thumb").nth(1).click()
    expect(page.locator("figure .error")).to_contain_text("<img src=x")
    page.reload()
    name_class(page, ATTACK)
    expect(page.locator("#references-list li")).to_contain_text("<img src=x")
    assert page.evaluate("window.attacked") is None
    assert page.locator("img[src=x]").count() == 0


def test_everything_has_a_name_and_a_place_in_the_tab_order(page):
    page.set_input_files("#references-files", files(good=10))
    choose(page, *files(a=51, b=204))
    expect(page.locator(".thumb .label")).to_have_text(["0.10", "0.40"])
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input:not([hidden])")]
            .filter((element) => !(element.textContent.trim() || element.ariaLabel || element.labels?.length))
            .map((element) => element.outerHTML)"""
    )
    assert unnamed == []
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"class", "choose", "clear", "opacity", "stretch", "compare", "thumb", "references-add", "remove", "rate",
            "calibration-folder"} <= reached  # fmt: skip


def test_phone_and_dark(context, service):
    service.backend.reset()
    screen = {"width": 360, "height": 740}
    phone = context.browser.new_context(color_scheme="dark", has_touch=True, is_mobile=True, viewport=screen)
    with phone, opened(phone, service.url) as page:
        choose(page, *files(**{f"a-name-that-is-long-enough-to-need-more-than-one-line-{n}": 51 for n in range(9)}))
        expect(score(page)).to_have_text("0.20")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        expect(page.locator("#result-title")).to_be_in_viewport()
        ground = page.locator("body").evaluate("element => getComputedStyle(element).backgroundColor")
        assert max(map(int, re.findall(r"\d+", ground))) < 60
