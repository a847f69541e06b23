import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.transforms.v2 import functional as TF

from contrastive import processor
from contrastive.augment import OPERATIONS, Augment, View, ViewMaker, parse_policy, pipeline
from contrastive.augment import operations as A

N = 6


def images(channels, seed=0, size=28):
    return torch.rand(N, channels, size, size, generator=torch.Generator().manual_seed(seed))


def assert_like_torchvision(ours, theirs, atol=1e-5):
    torch.testing.assert_close(ours, torch.stack(theirs), atol=atol, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("ours", "theirs", "low", "high"),
    [
        (A.adjust_brightness, TF.adjust_brightness, 0.2, 1.8),
        (A.adjust_contrast, TF.adjust_contrast, 0.2, 1.8),
        (A.adjust_saturation, TF.adjust_saturation, 0.2, 1.8),
        (A.adjust_hue, TF.adjust_hue, -0.5, 0.5),
    ],
)
def test_colour_adjustments(channels, ours, theirs, low, high):
    x, factor = images(channels), torch.linspace(low, high, N)
    assert_like_torchvision(ours(x, factor), [theirs(i, f.item()) for i, f in zip(x, factor, strict=True)], atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_hflip_and_grayscale(channels):
    x, where = images(channels), torch.tensor([True, False] * 3)
    pairs = list(zip(x, where, strict=True))
    assert_like_torchvision(A.hflip(x, where), [TF.horizontal_flip(i) if w else i for i, w in pairs])
    expected = [TF.rgb_to_grayscale(i, num_output_channels=channels) if w else i for i, w in pairs]
    assert_like_torchvision(A.grayscale(x, where), expected, atol=1e-3)


@pytest.fixture(params=["products with matrices", "one image after the other"])
def way_to_crop(request, monkeypatch):
    monkeypatch.setattr(A, "SMALL", 1000 if request.param == "products with matrices" else 0)


@pytest.mark.parametrize("size", [(28, 28), (20, 24), (9, 40), (6, 5), (1, 1)])
@pytest.mark.parametrize("shape", [(28, 28), (40, 30)])
def test_resized_crop_smooths_what_is_made_smaller(way_to_crop, size, shape):
    x = torch.rand(N, 3, *shape, generator=torch.Generator().manual_seed(0))
    boxes = [(0, 0, *shape), (5, 3, 10, 17), (27, 27, 1, 1), (0, 20, 28, 8), (2, 0, 13, 28), (9, 9, 2, 2)]
    expected = [TF.resized_crop(i, *b, size, antialias=True) for i, b in zip(x, boxes, strict=True)]
    assert_like_torchvision(A.resized_crop(x, torch.tensor(boxes), size), expected)


def test_resized_crop_of_bytes(way_to_crop):
    x = (images(3) * 255).byte()
    boxes = torch.tensor([(5, 3, 10, 17)] * N)
    torch.testing.assert_close(A.resized_crop(x, boxes), A.resized_crop(x.float() / 255, boxes), atol=1e-6, rtol=0)


BILINEAR = TF.InterpolationMode.BILINEAR
# At the border torchvision blends with a mask; inside, the two agree.
INSIDE = (slice(None), slice(None), slice(6, -6), slice(6, -6))
STILL = A.inverse_affine(torch.zeros(N), torch.ones(N), torch.zeros(N), torch.zeros(N, 2))


def test_warp_turns_as_torchvision_does_at_any_aspect():
    for x in (images(1), images(3)[..., :20]):
        angle = torch.tensor([0.0, 15.0, -15.0, 45.0, 90.0, 170.0])
        expected = [TF.rotate(i, a.item(), interpolation=BILINEAR) for i, a in zip(x, angle, strict=True)]
        ours = A.warp(x, A.inverse_affine(angle, torch.ones(N), torch.zeros(N), torch.zeros(N, 2)))
        torch.testing.assert_close(ours[INSIDE], torch.stack(expected)[INSIDE], atol=2e-3, rtol=0)


def test_warp_is_torchvisions_affine():
    x = images(1)
    degrees = torch.tensor([0.0, 20.0, -30.0, 10.0, 0.0, 5.0])
    scale, shear = torch.tensor([1.0, 0.8, 1.2, 1.0, 1.5, 0.9]), torch.tensor([0.0, 10.0, -15.0, 5.0, 20.0, 0.0])
    shift = torch.tensor([[0.0, 0.0], [3.0, -2.0], [1.0, 1.0], [-4.0, 2.0], [0.5, 0.0], [0.0, -2.5]])
    expected = [
        TF.affine(i, -d.item(), t.tolist(), s.item(), [h.item(), 0.0], interpolation=BILINEAR)
        for i, d, s, h, t in zip(x, degrees, scale, shear, shift, strict=True)
    ]
    ours = A.warp(x, A.inverse_affine(degrees, scale, shear, shift))
    # torchvision moves by whole pixels only
    whole = (shift == shift.round()).all(1)
    torch.testing.assert_close(ours[INSIDE][whole], torch.stack(expected)[INSIDE][whole], atol=1e-4, rtol=0)


def test_warp_is_torchvisions_elastic():
    x = images(3)[..., :20]
    pixels = 2 * torch.randn(N, 28, 20, 2, generator=torch.Generator().manual_seed(0))
    share = pixels * 2 / torch.tensor([20.0, 28.0])  # torchvision counts in halves of each side
    expected = [TF.elastic(i, s[None], interpolation=BILINEAR) for i, s in zip(x, share, strict=True)]
    assert_like_torchvision(A.warp(x, STILL, pixels), expected)


def test_displacements_are_smooth_and_as_large_as_asked():
    knots = torch.randn(500, 2, pipeline.KNOTS, pipeline.KNOTS, generator=torch.Generator().manual_seed(0))
    field = A.smooth_displacement(knots, 29, 29)
    corners = (slice(None), slice(None, None, 7), slice(None, None, 7))
    torch.testing.assert_close(field[corners].permute(0, 3, 1, 2), knots, atol=1e-5, rtol=0)
    assert field.diff(dim=1).std() < 0.3 * field.std()


def test_stroke_is_grey_scale_morphology():
    from scipy import ndimage

    x = images(1)
    for amount, reference in ((1.0, ndimage.grey_dilation), (-1.0, ndimage.grey_erosion)):
        expected = torch.stack(
            [torch.from_numpy(reference(i[0].numpy(), size=(3, 3), mode="nearest"))[None] for i in x]
        )
        torch.testing.assert_close(A.stroke(x, torch.full((N,), amount)), expected)
        torch.testing.assert_close(A.stroke(x, torch.full((N,), amount / 4)), x + (expected - x) / 4)
    assert torch.equal(A.stroke(x, torch.zeros(N)), x)


def test_erase_blackens_a_square_that_may_stick_out():
    x = torch.ones(3, 1, 6, 6)
    y = A.erase(x, torch.tensor([0.0, -1.0, 5.0]), torch.tensor([2.0, -2.0, 5.0]), 3)
    assert (y == 0).flatten(1).sum(1).tolist() == [9, 2, 1]
    assert y[0, 0, :3, 2:5].max() == y[2, 0, 5, 5] == 0


@pytest.mark.parametrize("kernel", [3, 5, 23])
def test_gaussian_blur(kernel):
    x, sigma = images(3), torch.linspace(0.1, 2.0, N)
    expected = [TF.gaussian_blur(i, [kernel, kernel], [s.item()] * 2) for i, s in zip(x, sigma, strict=True)]
    assert_like_torchvision(A.gaussian_blur(x, sigma, kernel), expected)
    torch.testing.assert_close(A.gaussian_blur(x, torch.zeros(N), kernel), x)


def test_normalize():
    x, mean, std = images(1), torch.tensor([0.1307]), torch.tensor([0.3081])
    assert_like_torchvision(A.normalize(x, mean, std), [TF.normalize(i, [0.1307], [0.3081]) for i in x])


def augmented(name, batch, seed=0):
    channels = batch.shape[1]
    view = Augment(name, torch.zeros(channels), torch.ones(channels))
    return view(batch, torch.Generator().manual_seed(seed))


ALL = "+".join(OPERATIONS)


@pytest.mark.parametrize(
    "name", ["simclr", "handwriting", "natural", "grey", ALL, *sorted(set(OPERATIONS) - {"hflip", "grayscale"})]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_has_its_own_draw_which_the_generator_decides(name, channels):
    same = (images(channels)[:1] * 255).byte().expand(64, -1, -1, -1)
    views = augmented(name, same)
    assert len({view.numpy().tobytes() for view in views}) > 20  # jitter and blur leave a part as it is
    assert torch.equal(views, augmented(name, same))
    assert not torch.equal(views, augmented(name, same, seed=1))
    assert views.min() >= 0
    assert views.max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_images_that_an_operation_leaves_alone_may_be_left_out(monkeypatch, channels):
    batch = (images(channels) * 255).byte().repeat(20, 1, 1, 1)
    before = batch.clone()
    monkeypatch.setattr(pipeline, "WORTH_ASKING", 1)
    asked = augmented(ALL, batch)
    monkeypatch.setattr(processor, "on_gpu", lambda x: True)  # as on a GPU, where all are computed
    torch.testing.assert_close(asked, augmented(ALL, batch), atol=1e-5, rtol=0)
    assert torch.equal(batch, before)


@pytest.mark.parametrize("name", ["simclr", "handwriting", ALL])
def test_how_many_images_are_worked_on_at_once_is_of_no_account(monkeypatch, name):
    batch = (images(3) * 255).byte().repeat(3, 1, 1, 1)
    at_once = augmented(name, batch)
    for images_at_once in (1, 4, 17):
        monkeypatch.setattr(pipeline, "CHUNK", images_at_once * batch[0].numel())
        torch.testing.assert_close(augmented(name, batch), at_once, atol=1e-5, rtol=0)


@pytest.mark.parametrize("asked", [True, False])
def test_memory_beside_the_views_does_not_grow_with_their_number(monkeypatch, asked):
    class Largest(TorchDispatchMode):
        sizes = ()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            made = [x.untyped_storage().nbytes() for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
            self.sizes = sorted({*self.sizes, *made})
            return out

    batch, at_once = torch.zeros(100, 3, 64, 64, dtype=torch.uint8), 4
    monkeypatch.setattr(pipeline, "CHUNK", at_once * batch[0].numel())
    monkeypatch.setattr(pipeline, "CHUNK_GPU", at_once * batch[0].numel())
    monkeypatch.setattr(processor, "on_gpu", lambda x: not asked)
    with Largest() as seen:
        augmented("simclr", batch)
    *others, views = seen.sizes
    assert views == 4 * batch.numel()
    # What is worked on has a border at most, to be blurred; all images are held as bytes only
    assert max(size for size in others if size != batch.numel()) < 1.3 * 4 * at_once * batch[0].numel()


@pytest.mark.parametrize("name", ["none", "handwriting", "crop", "stroke"])
def test_views_of_another_size(name):
    batch = (images(3) * 255).byte()
    views = Augment(name, torch.zeros(3), torch.ones(3), (24, 20))(batch, torch.Generator().manual_seed(0))
    assert views.shape == (N, 3, 24, 20)


def test_leaving_all_out_leaves_the_images_as_they_are():
    batch = (images(3) * 255).byte()
    for name in ("none", "simclr-" + "-".join(parse_policy("simclr"))):
        torch.testing.assert_close(augmented(name, batch), batch.float() / 255)


def test_normalisation_comes_last():
    batch = (images(1) * 255).byte()
    mean, std = torch.tensor([0.1307]), torch.tensor([0.3081])
    plain = augmented("simclr", batch)
    normalised = Augment("simclr", mean, std)(batch, torch.Generator().manual_seed(0))
    torch.testing.assert_close(normalised, (plain - mean) / std)


def test_grey_images_get_three_channels_where_the_normalisation_has_three():
    batch = (images(1) * 255).byte()
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.4, 0.3])
    views = Augment("simclr", mean, std)(batch, torch.Generator().manual_seed(0))
    plain = augmented("simclr", batch)
    torch.testing.assert_close(views, (plain - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    assert views.is_contiguous(memory_format=torch.channels_last)


def test_random_ranges_are_those_of_the_recipe():
    def uniform(low, high):
        return torch.rand(20_000, generator=generator) * (high - low) + low

    generator = torch.Generator().manual_seed(0)
    top, left, h, w = A.crop_box(uniform, (0.08, 1.0), 28, 28).unbind(1)
    share, aspect = h * w / 784, w / h
    assert (h + top).max() <= 28
    assert (w + left).max() <= 28
    assert min(top.min(), left.min()) == 0
    assert share.min() == pytest.approx(0.08, abs=0.02)
    assert share.mean() == pytest.approx(0.53, abs=0.03)  # boxes that do not fit are cut
    assert aspect[share < 0.4].median() == pytest.approx(1.0, abs=0.02)
    flipped = augmented("simclr-crop-jitter-blur-grayscale", torch.arange(28).byte().expand(2000, 1, 28, 28))
    assert (flipped[:, 0, 0, 0] > 0).float().mean() == pytest.approx(0.5, abs=0.05)


def test_jitter_applies_the_adjustments_in_both_orders():
    # Contrast after brightness keeps the mean of brightness; the other way round it does not: both must occur.
    batch = torch.full((400, 1, 8, 8), 100, dtype=torch.uint8)
    batch[..., :4] = 255
    means = augmented("simclr-hflip-crop-blur-grayscale", batch).mean((1, 2, 3))
    assert means.std() > 0.05
    unchanged = (augmented("simclr-hflip-crop-blur-grayscale", batch) == batch / 255).flatten(1).all(1)
    assert unchanged.float().mean() == pytest.approx(0.2, abs=0.06)


def test_a_method_gets_all_the_views_that_it_asks_for_in_order():
    batch = torch.arange(0, 240, 40, dtype=torch.uint8).view(N, 1, 1, 1).expand(N, 3, 28, 20)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.4, 0.3])
    asked = [View("crop+hflip", count=2), View("none"), View("crop", 14, 3)]
    views = ViewMaker(asked, (3, 28, 20), mean, std)(batch, torch.Generator().manual_seed(0))
    assert [tuple(view.shape) for view in views] == [(N, 3, 28, 20)] * 3 + [(N, 3, 14, 10)] * 3
    for view in views:  # of images without a pattern, a part is as the whole
        expected = (batch.float() / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
        torch.testing.assert_close(view, expected[..., : view.shape[2], : view.shape[3]], atol=1e-5, rtol=1e-5)
        assert view.is_contiguous(memory_format=torch.channels_last)


def test_views_of_one_policy_are_drawn_each_for_itself():
    batch = (images(1) * 255).byte()
    make = ViewMaker([View("simclr", count=2), View("simclr")], (1, 28, 28), torch.zeros(1), torch.ones(1))
    first, second, third = make(batch, torch.Generator().manual_seed(0))
    for a, b in ((first, second), (second, third), (first, third)):
        assert (a != b).flatten(1).any(1).all()
    for a, b in zip((first, second, third), make(batch, torch.Generator().manual_seed(0)), strict=True):
        assert torch.equal(a, b)
