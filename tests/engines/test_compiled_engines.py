"""OpenVINO and ONNX Runtime against the slow oracle and against the tower itself in float64."""

from __future__ import annotations

import copy
import gc
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import oracle
import pytest
import torch
from checkpoints import SMALL, build
from torch import nn

from tests.engines.towers import IMAGE_HW, VARIANTS, make_pixels, make_visual, needs
from winspect.backbones.embeddings import LAST, STEM, Embeddings, Needs
from winspect.backbones.image_tower import ImageTower
from winspect.backbones.open_clip_models import load
from winspect.engines import openvino_engine
from winspect.engines.compiled import OpenVINOGraph, openvino_core
from winspect.engines.compiled_engine import IMAGE_BATCH
from winspect.engines.graph_cache import GraphCache
from winspect.engines.openvino_engine import OpenVINOEngine, check_openvino_device
from winspect.engines.openvino_operators import OpenVINOOperators
from winspect.engines.tower_graph import Layout, build_tower, mlp_parts
from winspect.errors import ArchitectureError, DeviceError, DeviceMemoryError, EngineBuildError, MissingExtraError
from winspect.weights import TINY

TOLERANCE = 1e-5
ENGINES = ["openvino", "onnx"]


@pytest.fixture
def engine_of(tmp_path):
    """Makes an engine by name."""

    def make(name: str, visual: nn.Module, **options):
        tower = visual if isinstance(visual, ImageTower) else ImageTower(visual)
        if name == "openvino":
            return OpenVINOEngine(tower.eval(), threads=1, **options)
        onnx_engine = pytest.importorskip("winspect.engines.onnx_engine")
        return onnx_engine.OnnxEngine(tower.eval(), threads=1, cache=GraphCache(tmp_path / "graphs", "w"), **options)

    return make


def exact(visual: nn.Module, pixels: torch.Tensor, options: Needs) -> Embeddings:
    """The tower itself in float64, held to the oracle in test_encoder.py."""
    with torch.inference_mode():
        return ImageTower(copy.deepcopy(visual).double())(pixels.double(), options)


def assert_same(ours: Embeddings, expected: Embeddings) -> None:
    pairs = {
        "image": (ours.image, expected.image),
        **{f"windows {scale}": (ours.windows[scale], expected.windows[scale]) for scale in expected.windows},
    }
    assert set(ours.windows) == set(expected.windows)
    assert set(ours.patches) == set(expected.patches)
    pairs |= {layer: (ours.vectors(layer), expected.vectors(layer)) for layer in expected.patches}
    for name, (mine, theirs) in pairs.items():
        assert mine.dtype == torch.float32, name
        assert mine.shape == theirs.shape, name
        # Embeddings are compared by their cosines: what counts is the error against their size.
        error = float((mine - theirs).abs().max() / theirs.abs().max())
        assert error <= TOLERANCE, f"{name}: {error}"


# What comes out


@pytest.mark.parametrize("engine", ENGINES)
def test_embeddings_are_the_oracles(engine_of, engine):
    visual = make_visual()
    pixels = make_pixels(3)
    with torch.inference_mode():
        slow = [
            oracle.encode_tile(SimpleNamespace(visual=copy.deepcopy(visual).double()), own.double()) for own in pixels
        ]
    expected = Embeddings(
        image=torch.stack([tile.image for tile in slow]),
        windows={
            scale: torch.stack([torch.stack(list(oracle.of_scale(tile.windows, scale).values())) for tile in slow])
            for scale in (2, 3)
        },
        patches={LAST: torch.stack([tile.patches for tile in slow])[:, None]},
    )
    ours = engine_of(engine, visual).encode(pixels, needs((2, 3), 1, True))
    assert_same(ours, expected)
    assert expected.windows[2].std(dim=1).mean() > 0.1  # windows that were all alike would prove nothing


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("engine", ENGINES)
def test_every_kind_of_tower(engine_of, engine, variant):
    visual, pixels = make_visual(**VARIANTS[variant]), make_pixels(1)
    for scales, patches in (((2, 3), True), ((2, 3), False), ((), False)):
        options = needs(scales, 1, patches)
        assert_same(engine_of(engine, visual).encode(pixels, options), exact(visual, pixels, options))


@pytest.mark.parametrize(
    ("scales", "stride"), [((), 1), ((2,), 1), ((2, 3), 1), ((3, 2), 1), ((2, 3), 2), ((3,), 3), ((1,), 1)], ids=str
)
@pytest.mark.parametrize(("tiles", "batch"), [(1, 2), (3, 2), (3, None)])
@pytest.mark.parametrize("engine", ENGINES)
def test_every_layout(engine_of, engine, scales, stride, tiles, batch):
    """Three tiles in graphs of two: the last one is filled up."""
    visual, pixels = make_visual(layers=2), make_pixels(tiles)
    options = needs(scales, stride, len(scales) == 2)
    encoded = engine_of(engine, visual, batch_size=batch).encode(pixels, options)
    assert_same(encoded, exact(visual, pixels, options))


@pytest.mark.parametrize("engine", ENGINES)
def test_the_bundled_model(engine_of, engine):
    """Its patch embedding is a network of its own, whose features belong to the embeddings."""
    visual = load(TINY).model.visual
    tower = ImageTower(visual)
    pixels = torch.randn(1, 3, *tower.image_hw, generator=torch.Generator().manual_seed(0))
    options = Needs((2, 3), 1, (STEM, LAST))
    assert_same(engine_of(engine, visual).encode(pixels, options), exact(visual, pixels, options))


def test_a_square_tower_with_text_beside_it(engine_of):
    visual = build(SMALL).visual
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    options = needs((2, 3), 1, False)
    assert_same(engine_of("openvino", visual).encode(pixels, options), exact(visual, pixels, options))


# The exact savings


def run_openvino(visual: nn.Module, layout: Layout, pixels: torch.Tensor) -> dict[str, np.ndarray]:

    from winspect.engines.openvino_operators import openvino_model

    tower = ImageTower(visual)
    with torch.inference_mode():
        tokens = tower.tokens(pixels)[0].flatten(0, 1).numpy()
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    graph = OpenVINOGraph(openvino_core().compile_model(openvino_model(tower, layout), "CPU", hints))
    return {name: values.copy() for name, values in graph(tokens).items()}


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("patches", [False, True])
@pytest.mark.parametrize("scales", [(), (2, 3)])
def test_each_saving_changes_nothing(layers, patches, scales):
    visual, pixels = make_visual(layers=layers), make_pixels(2)
    saving = Layout((3, 4), scales, 1, patches, 2)
    expected = run_openvino(visual, replace(saving, share_first=False, read_last=False), pixels)
    assert set(expected) == {"image", *(f"windows_{scale}" for scale in scales), *(["patches"] if patches else [])}
    for own in (saving, replace(saving, share_first=False), replace(saving, read_last=False)):
        found = run_openvino(visual, own, pixels)
        for name, values in expected.items():
            assert np.abs(found[name] - values).max() <= TOLERANCE * np.abs(values).max(), name


class Counting:
    """Notes the rows of every matrix product and attention, and computes nothing."""

    def __init__(self) -> None:
        self.scope = ""
        self.products: dict[str, list[tuple[int, int, int]]] = {}

    def input(self, name, shape):
        return shape

    def output(self, name, x):
        pass

    def linear(self, x, weight, bias):
        self.products.setdefault(self.scope, []).append((x[0], x[1], len(weight)))
        return (x[0], len(weight))

    def layer_norm(self, x, weight, bias, eps):
        return x

    def activation(self, x, kind):
        return x

    def add(self, x, y):
        assert x == y
        return x

    def scale(self, x, factors):
        return x

    def take_rows(self, x, rows):
        assert rows.min() >= 0 and rows.max() < x[0]
        return (len(rows), x[1])

    def split_rows(self, x, lengths):
        assert sum(lengths) == x[0]
        return [(length, x[1]) for length in lengths]

    def split_columns(self, x, parts):
        return [(x[0], x[1] // parts)] * parts

    def join_rows(self, parts):
        return (sum(part[0] for part in parts), parts[0][1])

    def attention(self, queries, keys, values, *, sequences, heads):
        assert queries[0] % sequences == keys[0] % sequences == 0
        return queries


def products(layout: Layout) -> dict[str, list[tuple[int, int, int]]]:
    counting = Counting()
    build_tower(ImageTower(make_visual(layers=2)), layout, counting)
    return counting.products


def test_what_the_savings_save_by_hand():
    """3 x 4 patches: 13 tokens; 6 windows of 2 x 2 (5 tokens each) and 2 of 3 x 3 (10 each): 63 rows a tile."""
    layout = Layout((3, 4), (2, 3), 1, False, 2)
    assert layout.rows == 126
    assert layout.groups == [(2, 13), (12, 5), (4, 10)]
    saving, plain = products(layout), products(replace(layout, share_first=False, read_last=False))
    assert saving["block0/in_proj"] == [(26, 32, 96)]  # once per token
    assert plain["block0/in_proj"] == [(126, 32, 96)]
    assert sorted(saving["block1/in_proj"]) == [(18, 32, 32), (126, 32, 64)]  # queries of 2 + 12 + 4 class tokens
    assert plain["block1/in_proj"] == [(126, 32, 96)]
    assert saving["block1/mlp/c_fc"] == [(18, 32, 128)]
    assert plain["block1/mlp/c_fc"] == [(126, 32, 128)]
    assert products(replace(layout, patches=True))["block1/mlp/c_fc"] == [(26 + 16, 32, 128)]


def test_rows_of_windows_by_hand():
    """A grid of 2 x 3 patches, numbered from 1 behind the class token; two tiles of 7 tokens."""
    layout = Layout((2, 3), (2,), 1, False, 2)
    rows = layout.rows_of(2).reshape(2, 2, 5).tolist()
    assert rows == [[[0, 1, 2, 4, 5], [0, 2, 3, 5, 6]], [[7, 8, 9, 11, 12], [7, 9, 10, 12, 13]]]
    assert layout.windows(2) == 2


# Graphs that are kept


@pytest.fixture
def built(monkeypatch):
    """The layouts of which graphs are made; ``built.error`` is raised instead."""
    built = Built()
    whole = openvino_engine.openvino_model

    def noting(tower, layout):
        if built.error is not None:
            raise built.error
        built.append(layout)
        return whole(tower, layout)

    monkeypatch.setattr(openvino_engine, "openvino_model", noting)
    return built


class Built(list):
    error: Exception | None = None


def graphs_in_memory() -> int:
    gc.collect()
    return sum(type(thing) is OpenVINOGraph for thing in gc.get_objects())


def test_a_graph_with_patches_serves_calls_without(engine_of, built):
    visual, pixels = make_visual(layers=2), make_pixels(1)
    engine = engine_of("openvino", visual)
    for patches in (True, False, True):
        options = needs((2,), 1, patches)
        assert_same(engine.encode(pixels, options), exact(visual, pixels, options))
    assert [layout.patches for layout in built] == [True]


def test_a_graph_without_patches_gives_way_to_one_with_them(engine_of, built):
    engine, before = engine_of("openvino", make_visual(layers=1)), graphs_in_memory()
    for patches in (False, True, False):
        engine.encode(make_pixels(1), needs((2,), 1, patches))
    assert [layout.patches for layout in built] == [False, True]
    assert graphs_in_memory() == before + 1


def test_batches_are_filled_without_windows_and_single_with_them(engine_of, built):
    engine = engine_of("openvino", make_visual(layers=1))
    assert (engine.tiles_per_pass(needs()), engine.tiles_per_pass(needs((2,)))) == (IMAGE_BATCH, 1)
    engine.encode(make_pixels(3), needs((2,), 1, False))
    engine.encode(make_pixels(IMAGE_BATCH // 2 + 1), needs((), 1, False))
    engine.encode(make_pixels(3), needs((), 1, False))
    assert [layout.batch for layout in built] == [
        1,
        IMAGE_BATCH,
    ]  # the last tiles of a stream are filled up
    engine.encode(make_pixels(3), needs((), 1, False))
    assert [layout.batch for layout in built] == [
        1,
        IMAGE_BATCH,
        1,
    ]  # tiles that come one by one are not
    own = engine_of("openvino", make_visual(layers=1), batch_size=3)
    assert (own.tiles_per_pass(needs()), own.tiles_per_pass(needs((2,)))) == (3, 3)


def test_threads_share_an_engine(engine_of):
    """A graph has one set of buffers: two calls at once must not read each other's embeddings."""
    engine = engine_of("openvino", make_visual(layers=2))
    pixels = make_pixels(8)
    options = needs((2, 3), 1, True)
    alone = [engine.encode(own[None], options) for own in pixels]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda n: engine.encode(pixels[n % 8][None], options), range(64)))
    for number, embeddings in enumerate(together):
        torch.testing.assert_close(embeddings.windows[3], alone[number % 8].windows[3], rtol=0, atol=0)


def test_embeddings_outlive_the_next_call(engine_of):
    """A graph's outputs are views of its buffers; what the engine gives is not."""
    engine = engine_of("openvino", make_visual(layers=1))
    pixels = make_pixels(2)
    first = engine.encode(pixels[:1], needs((2,), 1, True))
    kept = first.map(torch.clone)
    engine.encode(pixels[1:], needs((2,), 1, True))
    torch.testing.assert_close(first.windows[2], kept.windows[2], rtol=0, atol=0)


def test_onnx_graphs_are_read_from_the_cache(engine_of, monkeypatch, tmp_path):
    pytest.importorskip("onnx")
    from winspect.engines.onnx_engine import OnnxOperators

    visual, pixels = make_visual(layers=1), make_pixels(1)
    options = needs((2,), 1, False)
    first = engine_of("onnx", visual).encode(pixels, options)
    monkeypatch.setattr(OnnxOperators, "save", lambda *_: pytest.fail("made again"))
    again = engine_of("onnx", visual).encode(pixels, options)
    torch.testing.assert_close(again.windows[2], first.windows[2], rtol=0, atol=0)


# What goes wrong


def with_activation(module: nn.Module) -> nn.Module:
    visual = make_visual(layers=2)
    for block in visual.transformer.resblocks:
        block.mlp.gelu = module
    return visual


@pytest.mark.parametrize("module", [nn.SiLU(), nn.GELU(approximate="tanh"), nn.Identity()], ids=str)
def test_an_unknown_activation_is_refused(engine_of, module):
    visual = with_activation(module)
    with pytest.raises(ArchitectureError, match=f"got an MLP .* with {type(module).__name__}; .* use engine torch"):
        build_tower(ImageTower(visual), Layout((3, 4), (2,), 1, False, 1), OpenVINOOperators())
    with pytest.raises(EngineBuildError, match="engine openvino cannot build its graph: got an MLP"):
        engine_of("openvino", visual).encode(make_pixels(1), needs((2,), 1, False))


def test_an_mlp_with_another_layer_is_refused():
    """It would be left out of the graph, in silence."""
    block = ImageTower(make_visual(layers=1)).blocks[0]
    assert mlp_parts(block)[1] == "gelu"
    block.mlp.add_module("ln", nn.LayerNorm(32))
    with pytest.raises(ArchitectureError, match="graphs know open_clip's plain MLP"):
        mlp_parts(block)


@pytest.mark.parametrize("norm", [nn.RMSNorm(32), nn.LayerNorm(32, elementwise_affine=False)], ids=str)
def test_another_normalisation_is_refused(norm):
    visual = make_visual(layers=1)
    visual.transformer.resblocks[0].ln_2 = norm
    with pytest.raises(ArchitectureError, match="graphs know LayerNorm with weights"):
        build_tower(ImageTower(visual), Layout((3, 4), (), 1, False, 1), Counting())


def test_an_error_of_the_library_names_the_engine(engine_of, built):
    built.error = RuntimeError("Check 'shape' failed")
    with pytest.raises(EngineBuildError, match="engine openvino cannot build its graph: Check 'shape' failed"):
        engine_of("openvino", make_visual(layers=1)).encode(make_pixels(1), needs((), 1, False))


def out_of_memory_of_onnxruntime() -> Exception:
    state = pytest.importorskip("onnxruntime.capi.onnxruntime_pybind11_state")
    return state.RuntimeException("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc")


@pytest.mark.parametrize("error", [lambda: RuntimeError("std::bad_alloc"), MemoryError, out_of_memory_of_onnxruntime])
def test_out_of_memory_halves_the_batch(engine_of, built, monkeypatch, caplog, error):
    visual, pixels, before = make_visual(layers=1), make_pixels(4), graphs_in_memory()
    engine = engine_of("openvino", visual, batch_size=4)
    whole = OpenVINOGraph.__call__

    def small(self, tokens):
        if len(tokens) > 2 * 13:
            raise error()
        return whole(self, tokens)

    monkeypatch.setattr(OpenVINOGraph, "__call__", small)
    options = needs((2,), 1, False)
    with caplog.at_level(logging.WARNING):
        assert_same(engine.encode(pixels, options), exact(visual, pixels, options))
    assert caplog.messages == ["out of memory on cpu with 4 tiles; going on with 2"]
    assert [layout.batch for layout in built] == [4, 2]
    assert graphs_in_memory() == before + 1  # the graph that was too large is gone


def test_not_even_one_tile_fits(engine_of, built):
    built.error = MemoryError()
    with pytest.raises(DeviceMemoryError, match="not even one tile fits"):
        engine_of("openvino", make_visual(layers=1)).encode(make_pixels(2), needs((), 1, False))


def test_what_is_prepared_is_not_built_again(engine_of, built):
    engine = engine_of("openvino", make_visual(layers=1))
    engine.prepare(needs((2,), 1, False))
    engine.encode(make_pixels(3), needs((2,), 1, False))
    assert [layout.batch for layout in built] == [1]


def test_memory_that_is_short_is_left_to_the_first_pass(engine_of, built):
    built.error = MemoryError()
    engine = engine_of("openvino", make_visual(layers=1))
    engine.prepare(needs((2,), 1, False))
    with pytest.raises(DeviceMemoryError):
        engine.encode(make_pixels(1), needs((2,), 1, False))


def test_a_device_that_openvino_does_not_find():
    assert check_openvino_device("CPU") == "CPU"
    for name in ("GPU.7", "", "cpu", "NPUX"):
        with pytest.raises(DeviceError, match=f"got the device openvino:{name}, but OpenVINO finds .*CPU"):
            check_openvino_device(name)
    with pytest.raises(DeviceError):
        OpenVINOEngine(ImageTower(make_visual(layers=1)), device="GPU.7")


def test_without_onnx_the_extra_is_named(engine_of, monkeypatch):
    engine = engine_of("onnx", make_visual(layers=1))
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r'needs onnx .*pip install .*\[onnx\]"'):
        engine.encode(make_pixels(1), needs((), 1, False))


def test_the_cache_of_compiled_graphs(tmp_path, built):
    """It is for other devices than the CPU, which serves to test it: the same calls, an export and an import."""

    class Keeping(OpenVINOEngine):
        def _build(self, layout):
            return OpenVINOGraph(self._from_cache(layout, GraphCache(tmp_path, "w")))

    visual, pixels = make_visual(layers=1), make_pixels(1)
    options = needs((2,), 1, False)
    expected = exact(visual, pixels, options)
    assert_same(Keeping(ImageTower(visual), threads=1).encode(pixels, options), expected)
    (folder,) = tmp_path.iterdir()
    assert {file.name for file in folder.iterdir()} == {"tower.blob", "manifest.json"}
    built.error = AssertionError("compiled again")
    assert_same(Keeping(ImageTower(visual), threads=1).encode(pixels, options), expected)


def test_the_cpu_needs_no_cache(tmp_path):
    engine = OpenVINOEngine(ImageTower(make_visual(layers=1)), threads=1, cache=GraphCache(tmp_path / "graphs", "w"))
    engine.encode(make_pixels(1), needs((), 1, False))
    assert not (tmp_path / "graphs").exists()
    assert ImageTower(make_visual(layers=1)).image_hw == IMAGE_HW
