"""Vision Transformers, against timm's and the formulas of the papers."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer

from contrastive import Settings, UserError
from contrastive.encoders import build_encoder, check_view, vit
from contrastive.settings import ENCODERS

from .trainings import begun, take_steps

SIZES = {"vit_tiny": (192, 3), "vit_small": (384, 6)}
NAMES = {  # of ours -> of timm's
    "patches.": "patch_embed.proj.", ".projection.": ".attn.proj.", ".qkv.": ".attn.qkv.", ".mlp.0.": ".mlp.fc1.",
    ".mlp.2.": ".mlp.fc2.",
}  # fmt: skip


def settings(name="vit_tiny", **parameters):
    return Settings(encoder=name, **parameters).encoder


def built(shape=(1, 28, 28), name="vit_tiny", **parameters):
    """A new encoder in train mode."""
    channels = shape[0]
    return build_encoder(settings(name, **parameters), shape, (0.5,) * channels, (0.25,) * channels).train()


def timms(ours, shape, name, depth, pool, side):
    """timm's network with the weights of ours, float64, in the same mode."""
    width, heads = SIZES[name]
    pooling = dict(global_pool="avg" if pool == "avg" else "token", class_token=pool == "cls", num_classes=0)
    theirs = VisionTransformer(shape[1:], side, shape[0], embed_dim=width, depth=depth, num_heads=heads, **pooling)
    state = {}
    for key, value in ours.body.state_dict().items():
        for own, other in NAMES.items():
            key = key.replace(own, other)
        if pool == "avg" and key.startswith("norm."):
            key = f"fc_{key}"
        state[key] = value
    positions = ours.body.places(ours.body.grid).detach()[None]
    state.pop("positions", None)
    if pool == "cls":
        state["cls_token"] = state.pop("class_token")[None, None]
        positions = torch.cat([torch.zeros(1, 1, width), positions], dim=1)
    theirs.double().load_state_dict(state | {"pos_embed": positions})
    return theirs.train(ours.training)


@pytest.mark.parametrize("positions", ["sincos", "learnable"])
@pytest.mark.parametrize("pool", ["avg", "cls"])
@pytest.mark.parametrize(("name", "shape", "side"), [("vit_tiny", (1, 28, 28), 4), ("vit_small", (3, 30, 20), 5)])
def test_features_and_gradients_are_those_of_timm(name, shape, side, pool, positions):
    torch.manual_seed(0)
    ours = built(shape, name, depth=2, pool=pool, positions=positions, patch_size=side)
    for parameter in ours.parameters():  # else biases and norms would play no part
        parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
    theirs = timms(ours.double(), shape, name, 2, pool, side)
    x, weights = torch.randn(4, *shape).double(), torch.randn(4, SIZES[name][0]).double()
    found, expected = ours.body(x), theirs(x)
    torch.testing.assert_close(found, expected)
    for features in (found, expected):
        (features * weights).sum().backward()
    named = dict(theirs.named_parameters())
    for key, parameter in ours.body.named_parameters():
        gradient = parameter.grad
        if key == "class_token":
            expected = named["cls_token"].grad[0, 0]
        elif key == "positions":
            gradient, expected = gradient.flatten(0, 1), named["pos_embed"].grad[0, pool == "cls" :]
        else:
            for own, other in NAMES.items():
                key = key.replace(own, other)
            expected = named[f"fc_{key}" if pool == "avg" and key.startswith("norm.") else key].grad
        assert gradient.abs().max() > 0
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize(
    ("name", "whole"),
    # DeiT with patches of 16 pixels and 1,000 classes (2012.12877, table 1: 5 and 22 million)
    [("vit_tiny", 5_717_416), ("vit_small", 22_050_664)],
)
def test_as_many_parameters_as_deit_has_without_its_classifier(name, whole):
    width = SIZES[name][0]
    classifier, place_of_the_class_token = width * 1000 + 1000, width
    with torch.device("meta"):
        deit = built((3, 224, 224), name, pool="cls", positions="learnable")
        usual = built((3, 224, 224), name)
    count = sum(p.numel() for p in deit.parameters())
    assert count == whole - classifier - place_of_the_class_token
    assert sum(p.numel() for p in usual.parameters()) == count - 196 * width - width
    assert usual.out_dim == width
    assert (usual.patches.kernel_size, usual.patches.stride) == ((16, 16), (16, 16))
    assert usual.patches is usual.body.patches
    assert usual.first_filters().shape == (width, 3, 16, 16)


@pytest.mark.parametrize(
    ("shape", "side"),
    [((8, 8), 2), ((19, 30), 2), ((20, 20), 3), ((28, 28), 4), ((32, 32), 4), ((48, 36), 5), ((64, 64), 8),
     ((96, 96), 12), ((112, 112), 14), ((128, 500), 16), ((224, 224), 16)],
)  # fmt: skip
def test_patches_are_an_eighth_of_the_shorter_side(shape, side):
    with torch.device("meta"):
        assert built((1, *shape), depth=1).patches.kernel_size == (side, side)
        assert built((1, *shape), depth=1, patch_size=7).patches.kernel_size == (7, 7)


@pytest.mark.parametrize("name", SIZES)
def test_weights_start_as_they_should(name):
    torch.manual_seed(0)
    encoder = built((3, 32, 32), name, depth=1, pool="cls", positions="learnable")
    width, body = SIZES[name][0], encoder.body
    limit = math.sqrt(6 / (3 * 4 * 4 + width))
    weight = body.patches.weight
    assert 0.99 * limit < weight.abs().max() <= limit
    assert weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.02)
    for part in (body.positions, body.blocks[0].qkv.weight, body.blocks[0].mlp[2].weight):
        assert part.std().item() == pytest.approx(0.02, rel=0.02)
    assert body.class_token.std().item() == pytest.approx(0.02, rel=0.15)
    biases = [p for key, p in encoder.named_parameters() if key.endswith("bias")]
    assert len(biases) == 1 + 6 + 1
    assert not any(bias.any() for bias in biases)
    assert all((layer.weight == 1).all() for layer in encoder.modules() if isinstance(layer, torch.nn.LayerNorm))


# --- Where patches are --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("grid", "own"), [((7, 7), (7, 7)), ((5, 3), (5, 3)), ((4, 4), (8, 8)), ((6, 9), (7, 8))])
def test_fixed_positions_are_sines_and_cosines(grid, own):
    width = 16
    found = vit.sincos(grid, own, torch.zeros(width, 1, dtype=torch.float64))
    assert (found.shape, found.dtype) == ((grid[0] * grid[1], width), torch.float64)
    for row in range(grid[0]):
        for column in range(grid[1]):
            y, x = (row + 0.5) * own[0] / grid[0] - 0.5, (column + 0.5) * own[1] / grid[1] - 0.5
            for i in range(width // 4):
                frequency = 10_000 ** -(i / (width // 4))
                expected = [f(place * frequency) for place in (y, x) for f in (math.sin, math.cos)]
                quarters = found[row * grid[1] + column].unflatten(0, (4, -1))[:, i].tolist()
                assert quarters == pytest.approx(expected, abs=1e-12)


def test_positions_of_the_images_own_grid_count_whole_patches():
    found = vit.sincos((7, 7), (7, 7), torch.zeros(8, 1))
    torch.testing.assert_close(found[:7, 4], torch.arange(7).float().sin())  # along the first row
    torch.testing.assert_close(found[::7, 0], torch.arange(7).float().sin())
    assert len(found.unique(dim=0)) == 49


@pytest.mark.parametrize("grid", [(7, 7), (4, 4), (9, 12), (1, 5)])
def test_learned_positions_are_interpolated_as_by_timm(grid):
    torch.manual_seed(0)
    body = built(depth=1, positions="learnable").body
    torch.nn.init.normal_(body.positions)
    theirs = copy.deepcopy(body.positions)
    found = body.places(grid)
    expected = resample_abs_pos_embed(theirs.flatten(0, 1)[None], list(grid), [7, 7], num_prefix_tokens=0)[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn_like(found)
    for places in (found, expected):
        (places * weights).sum().backward()
    torch.testing.assert_close(body.positions.grad, theirs.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("parameters", [{}, {"positions": "learnable", "pool": "cls"}])
@pytest.mark.parametrize("size", [(14, 14), (28, 30), (13, 21), (3, 3)])
def test_views_of_any_size_are_filled_up_to_whole_patches(size, parameters):
    torch.manual_seed(0)
    encoder = built(depth=2, **parameters).eval()
    x = torch.randn(3, 1, *size).contiguous(memory_format=torch.channels_last)
    height, width = (-(-side // 4) * 4 for side in size)
    filled = torch.zeros(3, 1, height, width)
    filled[..., : size[0], : size[1]] = x
    found = encoder(x)
    assert found.shape == (3, 192)
    torch.testing.assert_close(found, encoder(filled))
    changed = x.clone()
    changed[..., -1, -1] += 1
    assert not torch.allclose(encoder(changed), found, atol=1e-4)  # nothing is cut off


# --- Stochastic depth ---------------------------------------------------------------------------------------------


def test_branches_are_skipped_for_some_images_and_keep_their_mean():
    torch.manual_seed(0)
    block = vit.Block(8, 2, 0.3).train()
    branch = torch.randn(4000, 3, 8)
    found = block.sometimes(branch)
    ratio = found / branch
    skipped = (ratio == 0).all((1, 2))
    assert skipped.float().mean().item() == pytest.approx(0.3, abs=0.03)
    torch.testing.assert_close(ratio[~skipped], torch.full_like(ratio[~skipped], 1 / 0.7))
    assert ratio.mean().item() == pytest.approx(1, abs=0.03)
    block.eval()
    assert block.sometimes(branch) is branch


def test_later_blocks_are_skipped_more_often_and_the_seed_decides():
    encoder = built(depth=4, drop_path=0.3)
    assert [block.skipped for block in encoder.body.blocks] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert [block.skipped for block in built(depth=1, drop_path=0.3).body.blocks] == [0]
    x = torch.randn(8, 1, 28, 28)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(encoder(x))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    plain = built(depth=4).eval()
    plain.load_state_dict(encoder.state_dict())
    assert torch.equal(encoder.eval()(x), plain(x))
    assert torch.equal(plain.train()(x), plain.eval()(x))


# --- In use -------------------------------------------------------------------------------------------------------


def refused(shape, view=None, **parameters):
    with pytest.raises(UserError) as caught:
        ENCODERS["vit_tiny"].check(settings(**parameters), shape, view)
    return str(caught.value)


def test_images_and_views_smaller_than_a_patch_are_refused():
    patches = "encoder vit_tiny has patches of 16x16. Use patch_size="
    small = "the images have 8x12 pixels: "
    assert refused((1, 8, 12), patch_size=16) == f"{small}{patches}8 or less, or a larger image_size."
    assert refused((1, 28, 28), (1, 14, 15), patch_size=16) == f"{patches}14 or less, or larger views."
    assert refused((3, 224, 224), (3, 12, 12)) == f"{patches}12 or less, or larger views."
    assert "7x28 pixels: encoder vit_tiny needs at least 8x8. " in refused((1, 7, 28), patch_size=16)
    assert refused((1, 28, 28), (1, 7, 7)) == "encoder vit_tiny needs at least 8 pixels."
    ENCODERS["vit_tiny"].check(settings(patch_size=16), (1, 16, 16), (1, 16, 18))
    with pytest.raises(
        UserError, match=r"^local_view_size=14: encoder vit_tiny has patches of 16x16\. Use patch_size=14"
    ):
        check_view(settings(patch_size=16), (1, 28, 28), 14, "local_view_size")
    check_view(settings(), (1, 28, 28), 14, "local_view_size")
    check_view(settings(positions="learnable"), (1, 28, 40), 9, "local_view_size")


@pytest.mark.parametrize("parameters", [{}, {"positions": "learnable", "pool": "cls"}])
def test_an_encoder_built_without_memory_and_filled_gives_the_same_features(parameters):
    encoder = built((3, 20, 24), depth=2, **parameters).eval()
    with torch.device("meta"):
        again = built((3, 20, 24), depth=2, **parameters).eval()
    again.load_state_dict(encoder.state_dict(), assign=True)
    for size in ((20, 24), (10, 12)):
        x = torch.randn(3, 3, *size)
        assert torch.equal(again(x), encoder(x))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_changes_all_weights_and_stays_finite(precision):
    more = {"pool": "cls", "positions": "learnable"} if precision == "bfloat16" else {}
    training = begun(
        encoder="vit_tiny", depth=2, patch_size=7, drop_path=0.2, precision=precision, n_images=64, batch_size=16,
        view_size=20, lr=1e-3, warmup_epochs=0, epochs=4, **more,
    )  # fmt: skip
    before = {key: p.detach().clone() for key, p in training.method.encoder.named_parameters()}
    losses, _ = take_steps(training, 4)
    assert all(map(math.isfinite, losses))
    for key, parameter in training.method.encoder.named_parameters():
        assert parameter.isfinite().all()
        assert not torch.equal(parameter, before[key]), key


def test_precision_changes_features_little():
    torch.manual_seed(0)
    encoder, x = built((3, 32, 32), depth=4).eval(), torch.randn(16, 3, 32, 32)
    exact = encoder(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encoder(x)
    assert rounded.dtype == torch.float32
    assert F.cosine_similarity(exact, rounded).min() > 0.999
