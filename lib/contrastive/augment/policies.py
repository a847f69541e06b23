"""Augmentation policies as text: read, checked, spelled out, and chosen by what the images are."""

import re

from ..data import Images
from ..settings import SPELLERS, did_you_mean

# Operations of an augmentation policy: their numbers, each with its least, its largest and its usual value
OPERATIONS: dict[str, dict[str, tuple[float, float, float]]] = {
    "hflip": {"probability": (0, 1, 0.5)},
    "crop": {"least share of the area": (0.01, 1, 0.08), "largest share": (0.01, 1, 1)},
    "rotate": {"degrees to either side": (0, 180, 15)},
    "scale": {"least zoom": (0.1, 10, 0.8), "largest zoom": (0.1, 10, 1.25)},
    "shear": {"degrees to either side": (0, 60, 15)},
    "shift": {"share of the side, each way": (0, 1, 0.1)},
    "elastic": {"standard deviation, as a share of the side": (0, 1, 0.04)},
    "stroke": {"pixels on each side of a stroke": (0, 1, 0.5)},
    "jitter": {
        "brightness": (0, 1, 0.4),
        "contrast": (0, 1, 0.4),
        "saturation": (0, 1, 0.4),
        "hue": (0, 0.5, 0.1),
    },
    "blur": {"least standard deviation in pixels": (0, 10, 0.1), "largest": (0, 10, 2)},
    "noise": {"largest standard deviation": (0, 1, 0.1)},
    "grayscale": {"probability": (0, 1, 0.2)},
    "erase": {"share of the side": (0, 1, 0.3)},
}

POLICIES = {
    # The recipe as written, with the ranges of the SimCLR paper (2002.05709, appendix A; strength 0.5 as on
    # small images): the crop's area, and probabilities of 0.5, 0.8, 0.5 and 0.2.
    "simclr": "hflip:0.5+crop:0.08:1+jitter:0.4:0.4:0.4:0.1+blur:0.1:2+grayscale:0.2",
    # What suits handwriting: upright but slightly turned and slanted, never mirrored, all strokes in the picture, and
    # these thinner or thicker (chosen on validation images of MNIST: notebooks/grids/recipe.yaml).
    "handwriting": "crop:0.5:1+rotate:20+shear:20+stroke:0.7+jitter:0.4:0.4:0:0",
    # Small photographs: the recipe as written without its blur, as in the paper's own experiments on CIFAR-10
    # (2002.05709, appendix B.9).
    "natural": "hflip:0.5+crop:0.08:1+jitter:0.4:0.4:0.4:0.1+grayscale:0.2",
    # Scans such as X-rays: most of the picture stays in view, since what is looked for may lie anywhere; slightly
    # turned, brighter or darker (2010.00747, section 3.1, has much the same ranges for chest X-rays).
    "grey": "hflip:0.5+crop:0.6:1+rotate:20+jitter:0.4:0.4:0:0",
    "none": "",
}
AUTO = "auto"
LOCAL_CROP = (0.05, 0.4)  # shares of the area (DINO: 2104.14294, section 3.1)


def parse_policy(text: str) -> dict[str, tuple[float, ...]]:
    """An augmentation policy -> operation -> its numbers, in the order of OPERATIONS, which is that of application.

    A policy is a name of POLICIES or an operation, to which others are added and from which they are taken away, each
    with its usual numbers or with numbers of its own: `simclr-hflip`, `handwriting+elastic:0.05`, `crop:0.3:1+blur`.
    Raises: ValueError.
    """
    chosen: dict[str, tuple[float, ...]] = {}
    first, *rest = re.split(r"([+-])", text)
    if first in POLICIES:
        chosen = parse_policy(POLICIES[first]) if POLICIES[first] else {}
    else:
        rest = ["+", first, *rest]
    for sign, term in zip(rest[::2], rest[1::2], strict=True):
        op, *numbers = term.split(":")
        if op not in OPERATIONS or (sign == "-" and op not in chosen):
            known = [*OPERATIONS, *POLICIES] if term == first else OPERATIONS if sign == "+" else chosen
            raise ValueError(did_you_mean(op, known, f"operation of the augmentation policy {text!r}:"))
        if sign == "-" and not numbers:
            del chosen[op]
            continue
        asked = OPERATIONS[op]
        values = numbers or [str(usual) for *_, usual in asked.values()]
        if sign == "-" or len(values) != len(asked):
            raise ValueError(f"{sign}{term}: {op} takes {len(asked)} numbers, {', '.join(asked)}, as in {_usual(op)}")
        for value, (what, (low, high, _)) in zip(values, asked.items(), strict=True):
            if not re.fullmatch(r"\d+(\.\d+)?|\.\d+", value) or not low <= float(value) <= high:
                raise ValueError(f"{term}: {what} has to be a number from {low:g} to {high:g}, as in {_usual(op)}")
        chosen[op] = tuple(float(value) for value in values)
        if op in ("crop", "scale", "blur") and chosen[op][0] > chosen[op][1]:
            raise ValueError(f"{term}: the first number has to be the smaller one")
    return {op: chosen[op] for op in OPERATIONS if op in chosen}


def _usual(op: str) -> str:
    return ":".join([op, *(f"{usual:g}" for *_, usual in OPERATIONS[op].values())])


def spell_policy(text: str) -> str:
    """The same policy with every operation and number written out: equal policies give equal texts."""
    ranges = parse_policy(text)
    return "+".join(":".join([op, *(f"{value:g}" for value in values)]) for op, values in ranges.items()) or "none"


def with_smaller_crops(text: str) -> str:
    """The policy of multi-crop's small views: crops of 5 to 40 % of the area; where a policy's own crops never get so
    small, of half of its least share up to that share, since there the whole matters."""
    chosen = parse_policy(text)
    least = chosen.get("crop", (0.0, 1.0))[0]
    low, high = max(LOCAL_CROP[0], least / 2), max(LOCAL_CROP[1], least)
    return spell_policy(f"{text}+crop:{low:g}:{high:g}")


def automatic_policy(images: Images) -> tuple[str, str]:
    """The policy that `auto` stands for with these images, and why."""
    return {
        "digits": ("handwriting", "these are digits"),
        "grey": ("grey", "these images are grey"),
        "photos": ("natural", "these images have colours"),
    }[images.kind]


def describe_policy(policy: str, images: Images) -> str:
    """A policy in a sentence, and whether `auto` would have chosen it."""
    usual, why = automatic_policy(images)
    said = f"Views are drawn by policy `{policy}`"
    said += f", which is what `augment=auto` takes, since {why}" if policy == usual else ""
    return said + (f": `{spell_policy(policy)}`." if policy != spell_policy(policy) else ".")


def _spell_or_auto(text: str) -> str:
    return AUTO if text == AUTO else spell_policy(text)


SPELLERS["policy"] = _spell_or_auto
