import colorsys
import itertools
import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from contrastive import UserError
from contrastive.evaluation import corruptions as K
from contrastive.evaluation.corruptions import CORRUPTIONS, corrupt

EXACT = ("scale", "brightness", "stripe")  # draw nothing
NOISE = ("shot_noise", "impulse_noise")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth(n=4, channels=1, height=28, width=28):
    """Images of all grey levels, without sharp edges."""
    noise = np.random.default_rng(0).normal(size=(n, channels, height, width))
    noise = ndimage.gaussian_filter(noise, (0, 0, height / 14, width / 14))
    low, high = noise.min((1, 2, 3), keepdims=True), noise.max((1, 2, 3), keepdims=True)
    return torch.from_numpy((255 * (noise - low) / (high - low)).round()).byte()


def black(n):
    return torch.zeros(n, 1, 28, 28, dtype=torch.uint8)


def levels(x):
    return (np.clip(x, 0, 1) * 255).round()


def nearest(images, candidates):
    """For each image, its largest distance from the closest of the candidates, and which that is."""
    images = images[:, 0].float()
    candidates = torch.from_numpy(np.stack(candidates)).float()
    distances = torch.stack([(images - c).abs().amax((1, 2)) for c in candidates])
    return distances.min(0)


def test_the_twelve():
    names = "shot_noise impulse_noise glass_blur motion_blur shear scale rotate brightness translate stripe"
    assert list(CORRUPTIONS) == [*names.split(), "dotted_line", "zigzag"]


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 8, 8), (3, 33, 20)])
def test_same_shape_and_nothing_but_the_seed_decides(name, shape):
    images = smooth(40, *shape)
    before = images.clone()
    torch.manual_seed(0)
    first = corrupt(name, images, 5)
    torch.manual_seed(1)
    assert torch.equal(first, corrupt(name, images, 5))
    assert first.dtype == torch.uint8
    assert first.shape == images.shape
    assert torch.equal(images, before)
    assert (first != images).flatten(1).any(1).all()
    assert torch.equal(first, corrupt(name, images, 6)) == (name in EXACT)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_image_has_its_own_draw_also_beyond_a_batch(name, monkeypatch):
    monkeypatch.setattr(K, "BATCH", 32)
    result = corrupt(name, smooth(1).expand(64, -1, -1, -1), 0)
    different = len({image.numpy().tobytes() for image in result})
    few = {"shear": 2, "rotate": 2, "translate": 4} | dict.fromkeys(EXACT, 1)
    assert different == few[name] if name in few else different > 32  # motion_blur rounds to whole pixels


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name not in NOISE])
def test_channels_are_treated_alike(name):
    images = smooth(6)
    grey, colour = corrupt(name, images, 0), corrupt(name, images.repeat(1, 3, 1, 1), 0)
    assert torch.equal(colour, grey.repeat(1, 3, 1, 1))


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name not in (*NOISE, "glass_blur")])
def test_lengths_grow_with_the_side(name):
    images = smooth(20, height=56, width=56)
    small = torch.nn.functional.avg_pool2d(images.float(), 2).round().byte()

    def difference(seed):
        large = torch.nn.functional.avg_pool2d(corrupt(name, images, 0).float(), 2)
        return (large - corrupt(name, small, seed).float()).abs().mean()

    assert difference(0) < 4
    assert name in EXACT or difference(1) > 2 * difference(0)


def test_unknown_names_are_told_the_known_ones():
    with pytest.raises(UserError, match=r"no corruption 'fog': choose one of shot_noise, .*, zigzag"):
        corrupt("fog", black(1), 0)


@pytest.mark.parametrize("grey", [0, 51, 153, 255])
def test_shot_noise_counts_as_poisson_says(grey):
    images = torch.full((100, 3, 28, 28), grey, dtype=torch.uint8)
    result = corrupt("shot_noise", images, 0)
    shares = [(result == level).float().mean().item() for level in (0, 85, 170, 255)]
    counts = stats.poisson(3 * grey / 255)
    assert shares == pytest.approx([*counts.pmf([0, 1, 2]), counts.sf(2)], abs=0.005)
    if grey:
        channels = result.double().transpose(0, 1).flatten(1)
        assert torch.corrcoef(channels).fill_diagonal_(0).abs().max() < 0.02


def test_impulse_noise_is_salt_and_pepper():
    images = torch.full((100, 1, 28, 28), 100, dtype=torch.uint8)
    result = corrupt("impulse_noise", images, 0)
    assert result.unique().tolist() == [0, 100, 255]
    for level in (0, 255):
        assert (result == level).float().mean().item() == pytest.approx(0.085, abs=0.005)


def test_glass_blur_without_swaps_is_scipys_gaussian_twice(monkeypatch):
    monkeypatch.setattr(K, "_shuffle", lambda x, *_: x)
    for height, width in ((28, 40), (56, 28), (30, 20)):
        images = torch.randint(256, (4, 3, height, width), generator=generator(), dtype=torch.uint8)
        sigma = (0, 0, 0.7 * min(height, width) / 28, 0)
        once = np.uint8(ndimage.gaussian_filter(images.numpy() / 255, sigma, mode="nearest") * 255 + 1e-3)
        expected = levels(ndimage.gaussian_filter(once / 255, sigma, mode="nearest"))
        assert np.abs(corrupt("glass_blur", images, 0).numpy() - expected).max() <= 1


def test_glass_blur_leaves_even_images_alone():
    for grey in (0, 1, 100, 255):
        images = torch.full((2, 1, 28, 28), grey, dtype=torch.uint8)
        assert torch.equal(corrupt("glass_blur", images, 0), images)


@pytest.mark.parametrize(("reach", "times"), [(1, 2), (2, 1)])
def test_swaps_spread_a_pixel_as_the_published_loop_does(reach, times):
    size, n, rng = 8, 4000, np.random.default_rng(0)
    ours = torch.zeros(n, 1, size, size, dtype=torch.uint8)
    ours[:, :, 4, 4] = 1
    ours = K._shuffle(ours, reach, times, generator())[:, 0]
    assert (ours.flatten(1).sum(1) == 1).all()
    theirs = np.zeros((size, size))
    span = range(size - reach, reach, -1)
    for _ in range(n):
        place = (4, 4)  # of the only white pixel: other swaps do not matter
        pixels = [*itertools.product(span, span)] * times
        chances, moves = rng.random(len(pixels)), rng.integers(-reach, reach, (len(pixels), 2)).tolist()
        for here, chance, (x, y) in zip(pixels, chances.tolist(), moves, strict=True):
            there = (here[0] + y, here[1] + x)
            if chance < 0.5 and place in (here, there):
                place = there if place == here else here
        theirs[place] += 1 / n
    ours = ours.double().mean(0).numpy()
    for axis in (0, 1):  # they also tell in which order the pixels were gone over
        assert ours.sum(axis) == pytest.approx(theirs.sum(axis), abs=0.03)
    assert ours == pytest.approx(theirs, abs=0.03)


def test_swaps_move_whole_pixels():
    x = torch.arange(20 * 12, dtype=torch.uint8).view(1, 1, 20, 12)
    x = torch.cat([x, 255 - x], dim=1).expand(5, -1, -1, -1)
    y = K._shuffle(x, 1, 2, generator())
    assert torch.equal(y[:, 1], 255 - y[:, 0])
    assert torch.equal(y[:, 0].flatten(1).sort(1)[0], x[:, 0].flatten(1))
    assert (x != y).float().mean() > 0.5


@pytest.mark.parametrize(("height", "width"), [(28, 28), (14, 20)])
def test_motion_blur_is_a_correlation_with_half_a_gaussian_along_the_angle(height, width):
    images = smooth(12, 1, height, width)
    ratio = min(height, width) / 28
    angles = torch.rand(12, 1, generator=generator(3)) * 90 - 45  # the only draw
    result = corrupt("motion_blur", images, 3)
    for image, ours, degrees in zip(images, result, angles.flatten().tolist(), strict=True):
        taps = 2 * math.ceil(10 * ratio) + 1
        kernel = np.zeros((2 * taps + 1, 2 * taps + 1))
        for i in range(taps):
            x, y = (i * f(math.radians(degrees)) for f in (math.cos, math.sin))
            kernel[taps + math.ceil(y - 0.5), taps + math.ceil(x - 0.5)] += math.exp(-(i**2) / (2 * (3 * ratio) ** 2))
        expected = ndimage.correlate(image[0].double().numpy(), kernel / kernel.sum(), mode="nearest")
        assert np.abs(ours[0].numpy() - expected).max() <= 0.51


def affine(image, matrix, shift=(0.0, 0.0)):
    """SciPy's; matrix and shift from x, y of the result to those of the source."""
    matrix, shift = np.array(matrix)[::-1, ::-1], np.array(shift)[::-1]  # rows first
    middle = (np.array(image.shape) - 1) / 2
    offset = middle - matrix @ middle + shift
    warped = ndimage.affine_transform(image, matrix, offset, order=1, mode="grid-constant")
    return levels(warped)


SIN, COS = math.sin(0.4), math.cos(0.4)
AFFINE = {
    "shear": [([[1, -s * SIN], [0, COS]], (0, 0)) for s in (-1, 1)],
    "rotate": [([[COS, -s * SIN], [s * SIN, COS]], (0, 0)) for s in (-1, 1)],
    "scale": [([[1 / 0.7, 0], [0, 1 / 0.7]], (0, 0))],
    "translate": [([[1, 0], [0, 1]], (x, y)) for x in (-1, 1) for y in (-1, 1)],
}


@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.parametrize(("height", "width"), [(28, 28), (40, 21)])
def test_affine_corruptions_are_scipys_with_even_chances(name, height, width):
    image = smooth(1, 1, height, width)
    result = corrupt(name, image.expand(400, -1, -1, -1), 0)
    pixels = image[0, 0].double().numpy() / 255
    step = np.array([3 * width / 28, 3 * height / 28])
    distance, which = nearest(result, [affine(pixels, matrix, step * shift) for matrix, shift in AFFINE[name]])
    assert distance.max() <= 1
    shares = np.bincount(which, minlength=len(AFFINE[name])) / 400
    assert shares == pytest.approx(1 / len(AFFINE[name]), abs=0.08)


def test_translate_moves_by_whole_pixels():
    images = black(20)
    images[:, :, 10, 12] = 200
    places = corrupt("translate", images, 0)[:, 0].nonzero()[:, 1:].tolist()
    assert {tuple(place) for place in places} == {(7, 9), (7, 15), (13, 9), (13, 15)}


def test_brightness_raises_the_value():
    grey = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(corrupt("brightness", grey, 0), (grey.int() + 128).clamp(max=255).byte())  # a half is rounded up
    colours = torch.randint(256, (1, 3, 5, 5), generator=generator(), dtype=torch.uint8)
    colours[..., 0] = 0
    result = corrupt("brightness", colours, 0)
    for before, after in zip(colours[0].flatten(1).T.tolist(), result[0].flatten(1).T.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in before))
        assert after == pytest.approx(255 * np.array(colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.5))), abs=1)


def test_stripe_inverts_the_outer_quarters():
    images = smooth(2, 3)
    expected = images.clone()
    columns = [*range(7), *range(21, 28)]
    expected[..., columns] = 255 - images[..., columns]
    assert torch.equal(corrupt("stripe", images, 0), expected)


def line(c0, r0, c1, r1):
    """A line on 28 x 28 pixels."""
    result = np.zeros((28, 28))
    columns = np.arange(math.floor(c0), min(28, math.ceil(c1)))
    distance = np.abs(np.arange(28)[:, None] - r0 - (r1 - r0) * (columns - c0) / (c1 - c0))
    distance = np.minimum(distance, 2.3 * (1 - math.exp(-1)))  # where the brightness reaches 0
    result[:, columns] = 1 + np.log(1 - distance / 2.3)
    return result


def test_dotted_lines_join_two_rows():
    result = corrupt("dotted_line", black(150), 0)
    dots = np.arange(28) // 2 % 2 == 1
    dots[27] = False
    for image in result[:, 0].numpy():
        # Which line it is, the columns near its ends tell; a test of all 729 would be slow.
        middle = [(image[:, c] * np.arange(28.0)).sum() / max(1, image[:, c].sum()) for c in (2, 26)]
        found = [
            np.abs(image - levels(line(0, r0, 27, r1) * dots)).max()
            for r0 in range(max(0, int(middle[0]) - 2), min(27, int(middle[0]) + 4))
            for r1 in range(max(0, int(middle[1]) - 2), min(27, int(middle[1]) + 4))
        ]
        assert min(found) <= 1
    brightest = result[:, 0, :, 2].argmax(1)
    assert brightest.min() <= 2
    assert brightest.max() >= 24


def zigzag_line(start, rise):
    """The corners as complex numbers: along and beside a line, which is then turned."""
    length = abs(complex(23, rise))
    corners = [0, 2 + 2j, 6 - 2j, 10 + 2j, 14 - 2j, 18 + 2j, 22 - 2j, complex(length, -2 / (2 * (length - 20)))]
    corners = [corner * complex(23, rise) / length + complex(2, start) for corner in corners]
    lines = [line(a.real, a.imag, b.real, b.imag) for a, b in itertools.pairwise(corners)]
    return levels(sum(lines))


def test_zigzags_are_among_the_270():
    result = corrupt("zigzag", black(200), 0)
    distance, which = nearest(result, [zigzag_line(start, rise) for start in range(27) for rise in range(-5, 5)])
    assert distance.max() <= 1
    assert set((which // 10).tolist()) == set(range(27))
    assert set((which % 10).tolist()) == set(range(10))


@pytest.mark.parametrize("name", ["dotted_line", "zigzag"])
def test_lines_are_added_to_the_image(name):
    images = smooth(5)
    lines = corrupt(name, black(5), 0)
    assert (corrupt(name, images, 0).int() - (images.int() + lines.int()).clamp(max=255)).abs().max() <= 1
