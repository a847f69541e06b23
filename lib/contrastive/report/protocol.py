"""How an evaluation was done, in sentences: on which images, with which labels, by which metric, how sure."""

import numpy as np
import torch

from ..data import counted, n_repeats
from ..data.copied import copies_of
from ..encoders.general import USUAL, why_no_general
from ..evaluation import Findings, Key
from ..evaluation.judging import Judging
from ..settings import Settings
from .tables import NAMES

SHIFTED = 5.0  # points by which a class's share may differ between training and test images without a word
RARE = 15  # judged images of a class: of fewer, simulated intervals of balanced accuracy held too little
NAMED = 5  # classes that a sentence names
ALIKE_SHARE = 0.02  # of labelled images that have near copies among them, from which on this is worth a note


def judged_sentence(judging: Judging) -> str:
    """On which images classifiers are judged, and whether these were seen in pretraining."""
    images, n = judging.images, len(judging.labels)
    if not judging.n_folds:
        return (
            f"Classifiers are judged once, on {n:,} test images, which serve for nothing else"
            f"{_of_groups(judging)}. Intervals say how much chance is in that."
        )
    times = n_repeats(images)
    again = f" This is done {times} times with what is cheap to fit, with new parts each time." if times > 1 else ""
    seen = int(torch.isin(judging.index, judging.splits().pretrain).sum())
    return (
        f"There is no test split, and labels are too few to draw one. So the {n:,} labelled images are cross-validated"
        f"{_of_groups(judging)}: divided into {judging.n_folds} parts, of which each in turn is held out while all "
        f"choices and fits are made on the others.{again} All arms have the same parts. {seen:,} of these images were "
        "also pretrained on, without their labels. Intervals count that parts overlap in what they were trained on "
        "(Nadeau and Bengio 2003)."
    )


def _of_groups(judging: Judging) -> str:
    if not len(judging.groups):
        return ""
    names = judging.images.group_names
    named = sum(bool(names[i]) if names else True for i in np.unique(judging.groups.numpy()))
    return f", in {counted(named, 'group')} that {'is' if named == 1 else 'are'} kept whole"


def budgets_sentence(settings: Settings, judging: Judging) -> str:
    """How the labels of a budget were drawn, and how often."""
    own, unused = settings.evaluation, ""
    drawn = [n for n in own.budgets or () if not judging.n_folds and len(judging.tasks(n)) > 1]
    if own.label_draws > 1 and len(drawn) < len(own.budgets or ()):
        why = (
            "in cross-validation parts are drawn anew instead"
            if judging.n_folds
            else "of more than a tenth of all, two"
        )
        why += "" if judging.n_folds else " draws would hold much the same"
        with_ = ", ".join(f"{n:,}" for n in drawn)
        unused = f" `label_draws` counts {f'with {with_} labels only' if drawn else 'nowhere here'}: {why}."
    if own.budget_draw == "random":
        return (
            "Labels were drawn at random (`budget_draw=random`), so rare classes have few or none in small budgets."
            f"{unused}"
        )
    return (
        "Labels were drawn so that all classes have as many, as long as none runs out. Somebody who has yet to label "
        f"the images cannot draw so: `budget_draw=random` takes them as they come.{unused}"
    )


def metric_sentence(f: Findings) -> str:
    """By which metric the report leads, and why."""
    if f.metric == "accuracy":
        return (
            "Classes are about equally frequent, so the report leads with accuracy: the share of images that are right."
        )
    return (
        "There are two classes, or unevenly frequent ones, so the report leads with balanced accuracy: the mean over "
        f"classes of the share of a class's images that are right. Guessing gives {f.guess['balanced_accuracy']:.0f} "
        "%. AUC stands beside it: how well images are ranked, 50 % by guessing; it needs no threshold."
    )


def groups_sentence(judging: Judging) -> str:
    """What intervals count of groups; a warning, where there are none but images are alike."""
    if len(judging.groups):
        return "Images of one group are alike, so intervals count groups, not images."
    if n := n_alike(judging):
        return (
            f"**{n:,} of the {len(judging.labels):,} labelled images have near copies among them.** If these are of "
            "one patient, animal or place, results are too good: a classifier recognises what it has seen. Say what "
            "belongs together by `group`."
        )
    if judging.n_folds:
        return (
            "No groups were given. If several images are of one patient, animal or place, results are too good, and "
            "intervals too narrow: say what belongs together by `group`."
        )
    return ""


def n_alike(judging: Judging) -> int:
    """How many cross-validated images have near copies among the others, if they are worth a note; else 0."""
    if not judging.n_folds or len(judging.groups):  # which say themselves what belongs together
        return 0
    place = set(judging.index.tolist())
    pairs = [(copy.a, copy.b) for copy in copies_of(judging.images) if copy.a in place and copy.b in place]
    n = len({i for pair in pairs for i in pair})
    return n if n > ALIKE_SHARE * len(place) else 0


def rare_sentence(judging: Judging) -> str:
    """Which classes have too few judged images for intervals to be right; empty if none has."""
    counts = torch.bincount(judging.labels, minlength=len(judging.images.classes)).tolist()
    rare = [f"{name} ({n:,})" for name, n in zip(judging.images.classes, counts, strict=True) if 0 < n < RARE]
    if not rare:
        return ""
    more = f" and {len(rare) - NAMED:,} more" if len(rare) > NAMED else ""
    return (
        f"Some classes have fewer than {RARE} judged images: {', '.join(rare[:NAMED])}{more}. For so few, intervals of "
        "balanced accuracy and AUC are narrower than they should be."
    )


def shift_sentence(f: Findings) -> str:
    """Whether classes are as frequent among the judged images as among those trained on, and what that does to the
    accuracy; empty if they are."""
    images = f.judging.images
    if f.judging.n_folds:
        return ""
    n_classes = len(images.classes)
    known = images.train_labels[images.labelled]
    before, now = (
        100 * torch.bincount(labels, minlength=n_classes).double() / len(labels) for labels in (known, f.judging.labels)
    )
    if (before - now).abs().max() <= SHIFTED:
        return ""
    c = int((before - now).abs().argmax())
    right = torch.from_numpy(f.values(Key("accuracy", "linear", f.headline)).mean((0, 1)))
    recall = _recalls(right, f.judging.labels, n_classes)
    there = recall.isfinite()
    said, would = (float((share[there] * recall[there]).sum() / share[there].sum()) for share in (now, before))
    return (
        f"**Classes are not as frequent in the test images as in the training images**: {images.classes[c]} makes up "
        f"{before[c]:.0f} % of the latter and {now[c]:.0f} % of the former. With the training images' shares, the "
        f"linear probe's accuracy with {f.headline:,} labels would be {100 * would:.1f} % instead of {100 * said:.1f} "
        f"%. {NAMES['balanced_accuracy'].capitalize()} and AUC do not depend on the shares."
    )


def _recalls(right: torch.Tensor, labels: torch.Tensor, n_classes: int) -> torch.Tensor:
    return torch.stack([right[labels == c].mean() for c in range(n_classes)])


def general_sentence(settings: Settings, f: Findings) -> str:
    """That there is no network to compare with, and how to add one; empty if there is."""
    own = settings.evaluation
    if "general" in f.measured() or own.general == "none":
        return ""
    if f.judging.pixels.shape[1] not in (1, 3):
        return "ImageNet features are not compared here: they are of grey or colour images."
    why = why_no_general(USUAL if own.general == "auto" else own.general, own.weights or "")
    return f"*ImageNet features are not compared here: {why or 'no number of labels is small enough.'}*"


def as_json(judging: Judging) -> dict[str, object]:
    """How it was judged, for the `dataset` part of the results."""
    n_groups = len(np.unique(judging.groups.numpy()))
    said: dict[str, object] = {"judged": len(judging.labels), "folds": judging.n_folds}
    return said | ({"groups": n_groups} if n_groups else {})
