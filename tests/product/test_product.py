"""Products: what their files may say, what has changed since they were recorded, and who changed it."""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import fields
from pathlib import Path

import pytest
from PIL import Image
from site_pages import blocks, text_of

from winspect.errors import OutputError, SettingsError
from winspect.methods.registry import default_recipe
from winspect.product.document import Product, ProductModel
from winspect.product.file import load_product, problems, read_product
from winspect.product.history import history_folder, read_history
from winspect.product.recording import new_product, record
from winspect.product.sections import READERS
from winspect.system.toml_texts import tomllib

ENTRIES = {
    "name": "M6 nut",
    "class": "metal nut",
    "model": {"name": "winspect-tiny", "recipe": "log", "precision": "fp32"},
    "references": {"files": ["good"], "shots": 2},
}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with three good samples."""
    (tmp_path / "good").mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"good/{number}.png")
    return tmp_path


@pytest.fixture
def product(folder) -> Product:
    """A product, just written."""
    return new_product(folder / "m6.toml", ENTRIES, verb="product new")


def edit(path: Path, *replacements: tuple[str, str]) -> None:
    """Edit a file as a person does."""
    text = path.read_text()
    for before, after in replacements:
        assert before in text
        text = text.replace(before, after)
    path.write_text(text)


def refusal(path: Path) -> str:
    """What is said of a product that cannot be used."""
    with pytest.raises(SettingsError) as refused:
        load_product(path)
    return str(refused.value)


# -- the document


def test_a_new_product_says_what_it_was_given_and_hashes_its_files(product, folder):
    assert load_product(folder / "m6.toml") == product
    assert product.document() == {"schema": 1, "revision": 1, **ENTRIES}
    digests = {f"good/{n}.png": hashlib.sha256((folder / f"good/{n}.png").read_bytes()).hexdigest() for n in range(3)}
    assert product.record.files == digests
    assert problems(product) == []


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("schema = 1", "schema = 2", "schema: got 2, this release reads 1; upgrade winspect"),
        ("schema = 1\n", "", "schema: got None, this release reads 1; write schema = 1 at the top"),
        ("schema = 1", "schema = true", "schema: got True"),
        ("revision = 1", "revision = 0", "revision: got 0, need 1 or more"),
        ("revision = 1", 'revision = "1"', "revision: got '1', need a whole number"),
        ("revision = 1", "revision = true", "revision: got True, need a whole number"),
        ("revision = 1", "revison = 1", "the product: got the unknown key 'revison', known are schema, name,"),
        ('name = "M6 nut"', 'name = ""', "name: got '', need a printable text"),
        ('name = "M6 nut"', "name = 6", "name: got 6, need a text"),
        ('class = "metal nut"\n', "", "class: not there, need a text"),
        ('class = "metal nut"', 'class = "metal\\nnut"', "class: "),
        ('recipe = "log"', 'recipes = "log"', "[model]: got the unknown key 'recipes'"),
        ('recipe = "log"', "recipe = 1", "[model] recipe: got 1, need a text"),
        ('precision = "fp32"', 'precision = "auto"', "[model] precision: got 'auto', need one of fp32, bf16"),
        ('precision = "fp32"', "bit_depth = 8", "[model] bit_depth: got 8, need 9 to 16"),
        ('precision = "fp32"', "settings = 3", "[model] settings: got 3, need a table"),
        ('name = "winspect-tiny"\n', "", "[model] name: not there, need a text"),
        ('files = ["good"]', "files = []", "[references] files: got [], need a list of files"),
        ('files = ["good"]', "files = [1]", "[references] files: got [1]"),
        ("shots = 2", "shots = 0", "[references] shots: got 0, need 1 or more"),
        ("[references]", "[reference]", "the product: got the unknown key 'reference'"),
        ("[references]", "[calibration]\nfiles = []\n[references]", "[calibration]: got the unknown key 'files'"),
        ("[references]", "[drift]\nrat = 0.1\n[references]", "drift: got the key 'rat'"),
        ("[references]", "[references", "not TOML: "),
    ],
)
def test_a_file_that_says_something_wrong_is_refused_with_the_entry_and_the_fix(product, before, after, words):
    edit(product.path, (before, after))
    assert (said := refusal(product.path)).startswith(f"{product.path}: ") and words in said


def test_a_file_that_is_not_there_and_one_that_is_no_text(tmp_path):
    assert "cannot read it" in refusal(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    assert "cannot read it" in refusal(tmp_path / "binary.toml")


def test_sections_of_other_rooms_are_read_and_kept(product):
    edit(product.path, ("[references]", "[drift]\nrate = 0.05\n\n[feedback]\naudit_rate = 0.1\n\n[references]"))
    sections = read_product(product.path).sections
    assert (sections["drift"].rate, sections["feedback"].audit_rate) == (0.05, 0.1)
    with_deliveries = '[[deliveries]]\nkind = "command"\ncommand = "true"\n\n[references]'
    edit(product.path, ("[references]", with_deliveries))
    document = read_product(product.path).document()
    assert document["deliveries"] == [{"kind": "command", "command": "true"}]
    assert Product.read(document, product.path).document() == document


# -- files that change


def test_changed_missing_and_added_files_are_each_named_with_the_fix(product, folder):
    path, before = folder / "good/1.png", product.record.files["good/1.png"]
    Image.new("RGB", (8, 8), (9, 9, 9)).save(path)
    said = refusal(product.path)
    after = hashlib.sha256(path.read_bytes()).hexdigest()
    assert f"good/1.png has changed: its SHA-256 was {before} and is {after}" in said
    assert f"winspect product check --update {product.path}" in said
    os.remove(path)
    assert "good/1.png was among its files and is no more" in refusal(product.path)
    record(product.path, verb="test")
    Image.new("RGB", (8, 8), (1, 2, 3)).save(folder / "good/later.png")
    assert "good/later.png is new among its files" in refusal(product.path)


def test_many_changed_files_are_counted(product, folder):
    for number in range(8):
        Image.new("RGB", (8, 8), (0, number, 0)).save(folder / f"good/more{number}.png")
    assert "good/more4.png" in (said := refusal(product.path)) and "; and 3 more" in said
    assert len(problems(product)) == 8


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ('weights = "there.safetensors"', "[model] weights: "),
        ('prompts = "there.yaml"', "[model] prompts: "),
    ],
)
def test_named_files_that_are_not_there(product, folder, entry, words):
    edit(product.path, ('recipe = "log"', f'recipe = "log"\n{entry}'))
    (folder / "there.safetensors").write_bytes(b"weights")
    (folder / "there.yaml").write_text("templates: []")
    name = entry.split('"')[1]
    assert name in record(product.path, verb="test")[0].record.files
    (folder / name).unlink()
    assert words in (said := refusal(product.path)) and name in said and "check --update" in said
    with pytest.raises(SettingsError, match="cannot be read"):
        record(product.path, verb="test")


def test_tags_and_published_prompts_are_no_files(product):
    edit(product.path, ('recipe = "log"', 'recipe = "log"\nweights = "laion400m_e31"\nprompts = "accurate-winclip"'))
    assert set(record(product.path, verb="test")[0].record.files) == {f"good/{number}.png" for number in range(3)}


def test_references_that_are_gone(product, folder):
    os.rename(folder / "good", folder / "moved")
    assert "[references] files: " in (said := refusal(product.path)) and "no such file or folder" in said


def test_a_carried_folder_is_the_same_product(product, folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("elsewhere") / "carried"
    os.rename(folder, other)
    assert load_product(other / "m6.toml") == product


# -- two of one name


def test_two_products_of_one_name_are_refused_with_both_files(product, folder):
    (folder / "pyproject.toml").write_text('name = "M6 nut"')  # TOML, but no product
    (folder / "broken.toml").write_text("name = ")
    load_product(product.path)
    (folder / "copy.toml").write_text(product.path.read_text().replace("M6 nut", "m6 NUT"))
    said = refusal(product.path)
    assert f"{folder / 'copy.toml'} is a product of the same name, 'm6 NUT'" in said
    assert f"{product.path} is a product of the same name" in refusal(folder / "copy.toml")
    with pytest.raises(SettingsError, match="same name"):
        new_product(folder / "third.toml", ENTRIES, verb="product new")
    with pytest.raises(SettingsError, match="same name"):
        record(product.path, verb="test")


# -- revisions


def test_an_edit_is_refused_until_it_is_recorded_and_says_what_was_edited(product):
    edit(product.path, ('class = "metal nut"', 'class = "hex nut"  # as the drawing calls it'), ("shots = 2\n", ""))
    said = refusal(product.path)
    assert "class: metal nut -> hex nut; references.shots: 2 -> none" in said
    recorded, changes = record(product.path, verb="product check --update")
    assert [change.key for change in changes] == ["class", "references.shots"]
    assert (recorded.revision, recorded.class_name) == (2, "hex nut")
    assert load_product(product.path) == recorded
    text = product.path.read_text()
    assert "# as the drawing calls it" in text and text.index("[model]") < text.index("[references]")


def test_how_a_file_is_written_is_no_change(product):
    edit(product.path, ('name = "M6 nut"', "# a remark\n\"name\"   =   'M6 nut'"))
    assert load_product(product.path) == product
    before = product.path.read_text()
    assert record(product.path, verb="test") == (product, [])
    assert product.path.read_text() == before


def test_revisions_rise_and_the_history_says_who_when_and_what(product, monkeypatch):
    monkeypatch.setenv("LOGNAME", "ada")
    edit(product.path, ("shots = 2", "shots = 1"))
    record(product.path, verb="product check --update")
    Image.new("RGB", (8, 8), (7, 7, 7)).save(product.place("good/0.png"))
    record(product.path, verb="product check --update")
    first, second, third = read_history(product.path)
    assert [entry.revision for entry in (first, second, third)] == [1, 2, 3]
    assert (first.verb, first.changes) == ("product new", ())
    assert (second.user, second.verb) == ("ada", "product check --update")
    assert [change.in_words() for change in second.changes] == ["references.shots: 2 -> 1"]
    (change,) = third.changes
    assert change.key == "file good/0.png" and change.before == product.record.files["good/0.png"] != change.after
    assert first.time <= second.time <= third.time and first.time.endswith("+00:00")


def test_a_revision_that_was_edited_by_hand_is_no_revision(product):
    edit(product.path, ("revision = 1", "revision = 7"))
    assert "edited since it was recorded (revision: 1 -> 7)" in refusal(product.path)
    assert record(product.path, verb="test")[0].revision == 8


def test_a_file_written_by_hand_is_recorded_first(folder):
    path = folder / "hand.toml"
    path.write_text('schema = 1\nname = "by hand"\nrevision = 4\nclass = "nut"\n[model]\nname = "winspect-tiny"\n')
    assert "never recorded" in refusal(path)
    assert record(path, verb="test")[0].revision == 4
    assert load_product(path).revision == 4


def test_an_earlier_file_that_was_put_back_is_named_by_check(product):
    earlier = product.path.read_text()
    edit(product.path, ("shots = 2", "shots = 1"))
    record(product.path, verb="test")
    product.path.write_text(earlier)
    (found,) = problems(read_product(product.path))
    assert "knows revision 2, the product is revision 1" in found
    assert record(product.path, verb="test")[0].revision == 3


def test_a_change_that_was_cut_off_leaves_the_revision_before(product, monkeypatch):
    def fail(*_):
        raise OutputError("the disk is full")

    edit(product.path, ("shots = 2", "shots = 1"))
    before = product.path.read_text()
    monkeypatch.setattr("winspect.product.recording.write_file", fail)
    with pytest.raises(OutputError):
        record(product.path, verb="test")
    monkeypatch.undo()
    assert product.path.read_text() == before
    assert record(product.path, verb="test")[0].revision == 3
    assert [entry.revision for entry in read_history(product.path)] == [1, 2, 3]


def history_file(product: Product) -> Path:
    """The file that holds the lines of a history."""
    (path,) = history_folder(product.path).rglob("audit-*.jsonl")
    return path


@pytest.mark.parametrize("damage", ["altered", "removed", "cut"])
def test_a_damaged_history_is_named_at_its_line_and_never_written_over(product, damage):
    for shots in (3, 4):
        edit(product.path, (f"shots = {shots - 1}", f"shots = {shots}"))
        record(product.path, verb="test")
    path = history_file(product)
    lines = path.read_bytes().splitlines(keepends=True)
    if damage == "altered":
        lines[1] = lines[1].replace(b'"verb":"test"', b'"verb":"none"')
    else:
        del lines[1 if damage == "removed" else 2]
    path.write_bytes(b"".join(lines))
    with pytest.raises(SettingsError, match=r"audit-000001\.jsonl, line 2: "):
        read_history(product.path)
    edit(product.path, ("shots = 4", "shots = 5"))
    with pytest.raises(SettingsError, match="restore the folder, or move it away"):
        record(product.path, verb="test")
    assert path.read_bytes().startswith(b"".join(lines))
    assert any("audit-000001.jsonl" in problem for problem in problems(read_product(product.path)))
    assert "shots = 5" in product.path.read_text() and "revision = 3" in product.path.read_text()


def test_a_line_of_the_history_that_a_crash_cut_off_is_repaired_by_the_next_change(product):
    with history_file(product).open("ab") as file:
        file.write(b'{"n":2,"time":"2026')
    edit(product.path, ("shots = 2", "shots = 1"))
    assert record(product.path, verb="test")[0].revision == 2
    assert [entry.revision for entry in read_history(product.path)] == [1, 2]


def test_a_product_that_is_there_is_not_written_over(product):
    with pytest.raises(OutputError, match="is there already"):
        new_product(product.path, {**ENTRIES, "name": "other"}, verb="product new")
    product.path.unlink()
    with pytest.raises(OutputError, match="of an earlier product"):
        new_product(product.path, ENTRIES, verb="product new")


def test_two_at_once_never_make_one_revision_twice(product):
    refused, barrier = [], threading.Barrier(6)

    def change(number: int) -> None:
        def shots(text) -> None:
            text["references"]["shots"] = 10 + number

        barrier.wait()
        try:
            record(product.path, verb="test", edit=shots)
        except OutputError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=change, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == []
    assert [entry.revision for entry in read_history(product.path)] == list(range(1, 8))
    assert load_product(product.path).revision == 7


# -- the page


def test_the_page_of_the_line_shows_a_product():
    (block,) = [block for block in blocks("docs/line.md", "toml") if "schema = 1" in block]
    product = Product.read(tomllib.loads(block), Path("nut.toml"))
    assert (product.name, product.revision, product.model.recipe) == ("PN 4711", 2, default_recipe("winspect-tiny"))
    text = text_of("docs/line.md").split("\n## Product\n")[1].split("\n## ")[0]
    for section in READERS:
        assert f"`[{section}]`" in text or f"`[[{section}]]`" in text
    for entry in fields(ProductModel):
        assert f"`{entry.name}`" in text or f"\n{entry.name} = " in text
