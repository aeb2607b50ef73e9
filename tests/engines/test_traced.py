"""Traced graphs against the tower itself in float64: other sizes, blocks, the stem's maps, timm's models."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import timm_models
import torch

from tests.engines.towers import make_pixels, make_visual
from winspect.backbones.embeddings import LAST, LAST_NORM, STEM, STEM_8, STEM_16, WHOLE, Needs, block
from winspect.backbones.image_tower import ImageTower
from winspect.backbones.loading import load_tower
from winspect.backbones.timm_tower import TimmTower
from winspect.engines.compiled_engine import TRACES_KEPT
from winspect.engines.graph_cache import GraphCache
from winspect.engines.openvino_engine import OpenVINOEngine
from winspect.engines.torch_engine import TorchEngine
from winspect.engines.traced import Trace, has_packed_graph
from winspect.errors import DeviceMemoryError, EngineBuildError, SettingsError
from winspect.weights import TINY

ENGINES = ["torch", "openvino", "onnx"]
TIMM = {**timm_models.KINDS, **timm_models.ROTARY}


@pytest.fixture
def engine_of(tmp_path):
    """Makes an engine by name."""

    def make(name: str, tower, **options):
        cache = GraphCache(tmp_path / "graphs", "w")
        if name == "torch":
            return TorchEngine(copy.deepcopy(tower), torch.device("cpu"))
        if name == "openvino":
            return OpenVINOEngine(tower, threads=1, **{"cache": cache, **options})
        onnx_engine = pytest.importorskip("winspect.engines.onnx_engine")
        return onnx_engine.OnnxEngine(tower, threads=1, cache=cache, **options)

    return make


def clip_tower(**options) -> ImageTower:
    return ImageTower(make_visual(**options)).eval()


def timm_tower(kind: str) -> TimmTower:
    return TimmTower(timm_models.build(*TIMM[kind])).eval()


def pixels_of(tower, patches_hw, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, *(side * tower.patch for side in patches_hw), generator=generator)


def assert_equal_to_the_tower(engine, tower, pixels, needs: Needs, tolerance: float = 1e-4) -> None:
    """Arrays have the shapes and, to their size, the values that the tower gives in float64."""
    with torch.inference_mode():
        expected = copy.deepcopy(tower).double()(pixels.double(), needs)
    found = engine.encode(pixels, needs)
    pairs = {"image": (found.image, expected.image)}
    pairs |= {f"windows {scale}": (found.windows[scale], expected.windows[scale]) for scale in expected.windows}
    pairs |= {layer: (found.patches[layer], expected.patches[layer]) for layer in expected.patches}
    assert (set(found.windows), tuple(found.patches)) == (set(expected.windows), needs.layers)
    assert found.grid_hw == expected.grid_hw
    for name, (ours, theirs) in pairs.items():
        assert ours.shape == theirs.shape, name
        assert ours.dtype == torch.float32, name
        if theirs.numel():
            assert float((ours - theirs).abs().max() / theirs.abs().max()) < tolerance, name


@pytest.mark.parametrize("kind", TIMM)
@pytest.mark.parametrize("engine", ENGINES)
def test_models_of_timm(engine_of, engine, kind):
    tower = timm_tower(kind)
    for patches_hw, needs in (((4, 7), Needs(layers=(LAST_NORM, block(2)))), ((5, 5), Needs(layers=(block(1),)))):
        assert_equal_to_the_tower(engine_of(engine, tower), tower, pixels_of(tower, patches_hw, 3), needs)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_clip_at_any_size_with_blocks_and_windows(engine_of, engine):
    tower = clip_tower()
    ours = engine_of(engine, tower)
    for patches_hw, needs in (
        ((5, 3), Needs((2, 3), 1, (LAST,))),
        ((2, 6), Needs()),
        ((3, 4), Needs((2,), 1, (block(1), LAST, block(3), LAST_NORM))),
        ((3, 4), Needs((2,), 1, (LAST,))),  # the packed graph
        ((6, 6), Needs(layers=(block(2),))),
        ((6, 6), Needs((2,), 1, (WHOLE,), tower_size=48)),
    ):
        assert_equal_to_the_tower(ours, tower, pixels_of(tower, patches_hw, 2), needs)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_bundled_model_at_other_sizes(engine_of, engine):
    tower = load_tower(TINY).tower
    ours = engine_of(engine, tower)
    assert_equal_to_the_tower(ours, tower, pixels_of(tower, (6, 9), 2), Needs(layers=(STEM_8, STEM_16)))
    assert_equal_to_the_tower(ours, tower, pixels_of(tower, (7, 6), 1), Needs((2,), 1, (STEM, LAST_NORM, STEM_8)))
    assert_equal_to_the_tower(ours, tower, pixels_of(tower, (6, 6), 1), Needs((2,), 1, (WHOLE,), tower_size=64))


def test_models_that_pool_first_give_their_last_layer_twice(engine_of):
    tower = TimmTower(timm_models.build("vit_tiny_patch16_224", {"depth": 2, "global_pool": "avg"})).eval()
    needs = Needs(layers=(LAST, LAST_NORM, block(2)))
    assert_equal_to_the_tower(engine_of("openvino", tower), tower, pixels_of(tower, (3, 4), 1), needs)


def test_what_the_packed_graph_gives_it_goes_on_giving():
    tower, own = clip_tower(), (48, 64)
    for needs in (Needs(), Needs((2, 3)), Needs((2,), 1, (LAST,)), Needs(layers=(LAST_NORM,)), Needs((3,), 1, (STEM,))):
        assert has_packed_graph(tower, needs, own)
        assert not has_packed_graph(tower, needs, (64, 64))
    for layers in ((STEM,), (block(3),), (LAST, LAST_NORM), (STEM_8, LAST)):
        assert not has_packed_graph(tower, Needs(layers=layers), own)
    assert not has_packed_graph(timm_tower("plain"), Needs(layers=(LAST,)), (224, 224))


@pytest.fixture
def built(monkeypatch):
    """Plans of the graphs that are compiled, in order."""
    plans, build = [], OpenVINOEngine._build

    def noting(self, plan):
        plans.append(plan)
        return build(self, plan)

    monkeypatch.setattr(OpenVINOEngine, "_build", noting)
    return plans


def test_the_last_sizes_are_kept(engine_of, built):
    tower = clip_tower(layers=1)
    engine, needs = engine_of("openvino", tower), Needs(layers=(block(1),))
    sizes = [(2, columns) for columns in range(2, TRACES_KEPT + 3)]
    first, second, *_, last = sizes
    for patches_hw in sizes[:-1]:
        engine.encode(pixels_of(tower, patches_hw, 1), needs)
    engine.encode(pixels_of(tower, first, 1), needs)  # used again
    engine.encode(pixels_of(tower, last, 1), needs)  # in the place of the second
    assert len(built) == len(sizes)
    assert sum(isinstance(plan, Trace) for plan in engine._graphs) == TRACES_KEPT
    engine.encode(pixels_of(tower, first, 1), needs)
    assert len(built) == len(sizes)
    engine.encode(pixels_of(tower, second, 1), needs)
    assert [plan.image_hw for plan in built[len(sizes) :]] == [(32, 16 * second[1])]


def test_tiles_are_put_together_where_they_have_few_patches(engine_of, built):
    tower = clip_tower(layers=1)
    engine, needs = engine_of("openvino", tower, image_hw=(64, 64)), Needs(layers=(block(1),))
    assert engine.tiles_per_pass(needs) == 8
    assert_equal_to_the_tower(engine, tower, pixels_of(tower, (4, 4), 11), needs)
    assert [plan.batch for plan in built] == [8]
    assert engine_of("openvino", tower, image_hw=(1024, 1024)).tiles_per_pass(needs) == 1
    assert engine_of("openvino", tower, image_hw=(64, 64), batch_size=1).tiles_per_pass(needs) == 1


def test_what_is_prepared_is_not_built_again(engine_of, built):
    tower = clip_tower(layers=1)
    engine, needs = engine_of("openvino", tower, image_hw=(32, 32)), Needs(layers=(block(1),))
    engine.prepare(needs)
    engine.encode(pixels_of(tower, (2, 2), 8), needs)
    assert [plan.image_hw for plan in built] == [(32, 32)]


@pytest.mark.parametrize("name", ["openvino", "onnx"])
def test_a_graph_is_traced_once_for_the_same_weights(engine_of, monkeypatch, name):
    tower, needs = timm_tower("registers"), Needs(layers=(LAST_NORM,))
    pixels = pixels_of(tower, (3, 5), 1)
    first = engine_of(name, tower).encode(pixels, needs)
    for place in ("openvino_engine.openvino_trace", "onnx_engine.write_onnx_trace"):
        monkeypatch.setattr(f"winspect.engines.{place}", lambda *_: pytest.fail("traced again"))
    again = engine_of(name, tower).encode(pixels, needs)
    assert torch.equal(first.patches[LAST_NORM], again.patches[LAST_NORM])


def test_errors_of_tracing_are_those_of_building(engine_of, monkeypatch):
    def fails(*_):
        raise RuntimeError("no such operator")

    monkeypatch.setattr("winspect.engines.openvino_engine.openvino_trace", fails)
    tower = timm_tower("plain")
    with pytest.raises(EngineBuildError, match="openvino cannot build its graph: no such operator"):
        engine_of("openvino", tower).encode(pixels_of(tower, (3, 4), 1), Needs(layers=(LAST,)))

    def full(*_):
        raise MemoryError

    monkeypatch.setattr("winspect.engines.openvino_engine.openvino_trace", full)
    with pytest.raises(DeviceMemoryError):
        engine_of("openvino", tower).encode(pixels_of(tower, (3, 4), 1), Needs(layers=(LAST,)))


@pytest.mark.parametrize("name", ENGINES)
def test_a_size_of_broken_patches_is_refused(engine_of, name):
    with pytest.raises(SettingsError, match="got tiles of 64x50 pixels for patches of 16x16"):
        engine_of(name, clip_tower(layers=1)).encode(torch.zeros(1, 3, 50, 64), Needs())


@pytest.mark.parametrize("name", ["openvino", "onnx"])
def test_operators_are_timed(engine_of, name):
    tower = clip_tower(layers=1)
    times = engine_of(name, tower).timings(pixels_of(tower, (3, 5), 2), Needs(layers=(block(1),)))
    assert sum(time.seconds for time in times) > 0


def test_bf16_is_near_fp32(engine_of):
    tower = timm_tower("registers")
    pixels, needs = pixels_of(tower, (6, 6), 2), Needs(layers=(LAST_NORM,))
    ours = engine_of("openvino", tower, precision="bf16").encode(pixels, needs).vectors(LAST_NORM)
    with torch.inference_mode():
        exact = tower(pixels, needs).vectors(LAST_NORM)
    assert torch.nn.functional.cosine_similarity(ours, exact, dim=2).min() > 0.995


def test_int8_is_near_fp32_and_quantised_once(tmp_path, monkeypatch):
    quantised = pytest.importorskip("winspect.engines.quantised")
    pytest.importorskip("nncf")
    tower, needs = timm_tower("plain"), Needs(layers=(LAST_NORM, block(2)))
    generator = torch.Generator().manual_seed(0)
    calibration = torch.randn(8, 3, 64, 64, generator=generator)

    def engine():
        return quantised.QuantisedEngine(
            tower, calibration=calibration, cache=GraphCache(tmp_path, "w"), needs=needs, threads=1
        )

    pixels = pixels_of(tower, (4, 6), 2)
    whole = engine().encode(pixels, needs)
    with torch.inference_mode():
        exact = tower(pixels, needs)
    for layer in needs.layers:
        near = torch.nn.functional.cosine_similarity(whole.vectors(layer), exact.vectors(layer), dim=2)
        assert near.mean() > 0.97
    monkeypatch.setattr(quantised.QuantisedEngine, "_quantise", lambda *_: pytest.fail("quantised again"))
    part = engine().encode(pixels, Needs(layers=(LAST_NORM,)))
    assert np.array_equal(part.patches[LAST_NORM], whole.patches[LAST_NORM])
    assert tuple(part.patches) == (LAST_NORM,)


def test_out_of_memory_leaves_fewer_tiles_to_a_graph(engine_of, monkeypatch):
    from winspect.engines.compiled import OpenVINOGraph

    whole = OpenVINOGraph.__call__

    def small(self, pixels):
        if len(pixels) > 2:
            raise MemoryError
        return whole(self, pixels)

    monkeypatch.setattr(OpenVINOGraph, "__call__", small)
    tower = clip_tower(layers=1)
    engine = engine_of("openvino", tower, image_hw=(32, 32))
    assert_equal_to_the_tower(engine, tower, pixels_of(tower, (2, 2), 8), Needs(layers=(block(1),)))
    assert [plan.batch for plan in engine._graphs] == [2]


def test_tiles_of_the_own_size_with_blocks_are_traced_too(engine_of):
    tower = clip_tower()
    assert_equal_to_the_tower(engine_of("openvino", tower), tower, make_pixels(2), Needs(layers=(block(3),)))
