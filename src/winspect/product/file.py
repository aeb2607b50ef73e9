"""The file of a product: reading it, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

from winspect.calibration import Calibration
from winspect.errors import SettingsError
from winspect.methods.method import Method
from winspect.methods.registry import default_recipe, get_method
from winspect.methods.winclip.prompts import class_key
from winspect.product.document import Product
from winspect.product.history import Change, changes, history_folder, read_history
from winspect.product.named_files import MOST_NAMED, changed_files, reference_files, update_command
from winspect.system.toml_texts import read_toml
from winspect.weights import HUB, LOCAL
from winspect.weights.cache import hash_file

ENDING = ".toml"


def read_product(path: Path) -> Product:
    """A product as its file says, whether it is as it was recorded or not.

    Raises:
        SettingsError: no such file, not TOML, or as of :meth:`Product.read`; names the file and the entry.
    """
    document = read_toml(path)
    try:
        return Product.read(document, path)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def load_product(path: Path) -> Product:
    """A product to inspect with: as it was recorded, with the files that it was recorded with.

    Raises:
        SettingsError: as of :func:`read_product`; it or one of its files has changed since; or another product in its
            folder has its name. Names what has changed, with both values, and the fix.
    """
    product = read_product(path)
    if found := [*same_name(product), *differences_to_record(product)]:
        more = f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        raise SettingsError(
            f"{path}: {'; '.join(found[:MOST_NAMED])}{more}. Put it back as it was, or record it as a new revision: "
            f"{update_command(path)}"
        )
    return product


def differences_to_record(product: Product) -> list[str]:
    """How a product and its files differ from what was recorded, a sentence each; empty for not at all.

    Raises:
        SettingsError: one of its files is not there.
    """
    if product.record is None:
        return ["it was never recorded: it has no table [record]"]
    found = []
    if product.record.document != product.fingerprint:
        edits = "; ".join(change.in_words() for change in edits_since(product))
        found.append(f"it was edited since it was recorded ({edits or 'there is no history that says where'})")
    return found + changed_files(product, product.record.files)


def edits_since(product: Product) -> list[Change]:
    """The entries that were edited since the last recorded revision; none where there is no history that says."""
    try:
        entries = read_history(product.path)
    except SettingsError:
        return []
    if not entries:
        return []
    found = changes(entries[-1].document, {}, product.document(), {})
    if entries[-1].revision != product.revision:
        found.insert(0, Change("revision", entries[-1].revision, product.revision))
    return found


def problems(product: Product) -> list[str]:
    """All that is wrong with a product, as far as can be said without its model; empty for nothing."""
    found = same_name(product)
    for check in (differences_to_record, _history_problems, _model_problems, _calibration_problems):
        try:
            found += check(product)
        except SettingsError as error:
            found.append(str(error).removeprefix(f"{product.path}: "))
    return list(dict.fromkeys(found))


def same_name(product: Product) -> list[str]:
    """Other products of this name in the folder, a sentence each: rows would not say which of them decided."""
    found = []
    for path in sorted(product.path.parent.glob(f"*{ENDING}")):
        if path.name == product.path.name or not path.is_file():
            continue
        try:
            document = read_toml(path)
        except SettingsError:
            continue  # no product, or one that says so itself when it is used
        is_product, name = {"schema", "class"} <= document.keys(), str(document.get("name"))
        if is_product and name.casefold() == product.name.casefold():
            found.append(f"{path} is a product of the same name, {name!r}: give one of them another name")
    return found


def _history_problems(product: Product) -> list[str]:
    entries = read_history(product.path)
    last = entries[-1].revision if entries else 0
    if last == product.revision:
        return []
    where = history_folder(product.path)
    if last < product.revision:
        return [f"{where} ends at revision {last}, the product is revision {product.revision}: restore the history"]
    return [
        f"{where} knows revision {last}, the product is revision {product.revision}: an earlier file was put back, or "
        "a change was cut off"
    ]


def _method(product: Product) -> Method:
    return get_method(product.model.recipe or default_recipe(product.model.name), product.model.settings)


def _model_problems(product: Product) -> list[str]:
    _method(product).check_good_samples(product.class_name, are_there=product.references is not None)
    return []


def _calibration_problems(product: Product) -> list[str]:
    """Whether the calibration was made with what the product says; what only the model knows is checked with it."""
    if product.calibration is None:
        return []
    made = Calibration.load(product.place(product.calibration)).identity
    model, method = product.model, _method(product)
    shots = None if product.references is None else product.references.shots
    samples = {hash_file(path) for path in reference_files(product)[:shots]}
    is_named = not model.name.startswith((LOCAL, HUB))  # a folder or a repository: its name is in its configuration
    is_class = class_key(made.class_name or "") == class_key(product.class_name)
    different = [
        ("class", made.class_name, product.class_name, not is_class),
        ("model", made.model, model.name, is_named and made.model != model.name),
        ("recipe", made.recipe.name, method.name, made.recipe.name != method.name),
        ("precision", made.precision, model.precision, model.precision not in (made.precision, None)),
    ]
    found = [f"{name} ({then} there, {now} here)" for name, then, now, differs in different if differs]
    if samples != {sample.sha256 for sample in made.references}:
        found.append(f"good samples ({len(made.references)} there, {len(samples)} here)")
    fix = f"calibrate again: winspect calibrate GOOD --product {product.path}"
    return [f"[calibration] {product.calibration} was made with another {each}; {fix}" for each in found]
