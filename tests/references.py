"""Each method in a few lines of float64, written from its paper."""

from __future__ import annotations

import math

import torch

from .stepwise import Reference


def norm(x):
    return x / x.square().sum(1, keepdim=True).sqrt()


def cosine(a, b):
    return (norm(a) * norm(b)).sum(1).mean()


def softmax(x):
    return x.exp() / x.exp().sum(1, keepdim=True)


def mean(values):
    return sum(values) / len(values)


# --- Methods that compare images ----------------------------------------------------------------------------------


def nt_xent(a, b, temperature):
    """Equation 1 of 2002.05709, anchor by anchor."""
    z, n, total = norm(torch.cat([a, b])), len(a), 0.0
    for i in range(2 * n):
        logits = z @ z[i] / temperature
        others = [k for k in range(2 * n) if k != i]
        total = total - logits[(i + n) % (2 * n)] + logits[others].exp().sum().log()
    return total / (2 * n)


class SimCLR(Reference):
    def loss(self, views, k):
        z = self.each(views, self.net.encoder, self.net.head)
        pairs = [(0, 1)] + [(small, large) for small in range(2, len(z)) for large in (0, 1)]
        return mean([nt_xent(z[i], z[j], self.own.temperature) for i, j in pairs])


def info_nce(query, keys, own, temperature):
    """Equation 1 of 1911.05722, query by query. own: which of the keys is each query's."""
    total = 0.0
    for one, right in zip(norm(query), own, strict=True):
        logits = torch.stack([one @ key for key in keys]) / temperature
        total = total - torch.log(logits.exp()[right] / logits.exp().sum())
    return total / len(query)


class MoCo(Reference):
    """The queue is a list, from the oldest key to the newest."""

    FOLLOWERS = {"key_encoder": "encoder", "key_head": "head"}

    def __init__(self, training):
        super().__init__(training)
        self.queue = list(self.net.queue)

    def momentum(self, k):
        return self.own.momentum

    def loss(self, views, k):
        first, second, *small = views
        queries = self.each([first], self.net.encoder, self.net.head)
        queries += self.each(small, self.net.encoder, self.net.head)
        with torch.no_grad():
            self.keys = norm(self.net.key_head(self.net.key_encoder.body(second)))
        losses = []
        for query in queries:
            for i, one in enumerate(query):
                losses.append(info_nce(one[None], [self.keys[i], *self.queue], [0], self.own.temperature))
        return mean(losses)

    def after(self, k):
        super().after(k)
        size, n = len(self.queue), len(self.keys)
        self.queue = [*self.queue, *self.keys][-size:]
        self.net.place.fill_(n * (k + 1) % size)
        self.net.queue.copy_(torch.stack(self.queue).roll(int(self.net.place), 0))


class MoCoV3(Reference):
    FOLLOWERS = {"key_encoder": "encoder", "key_head": "head"}

    def loss(self, views, k):
        queries = self.each(views, self.net.encoder, self.net.head, self.net.predictor)
        with torch.no_grad():
            keys = [norm(x) for x in self.each(views[:2], self.net.key_encoder, self.net.key_head)]
        own, t = range(len(keys[0])), self.own.temperature
        losses = [2 * t * info_nce(queries[i], keys[j], own, t) for i, j in self.crossed(views)]
        return 2 * mean(losses)  # of two views: once with each as the query


class SupCon(Reference):
    """Equation 2 of 2004.11362. `labels` are those of the images of the next step."""

    def loss(self, views, k):
        z = norm(torch.cat(self.each(views, self.net.encoder, self.net.head)))
        labels, losses = [int(y) for _ in views for y in self.labels], []
        for i in range(len(z)):
            others = [a for a in range(len(z)) if a != i]
            alike = [p for p in others if labels[p] == labels[i]]
            below = sum((z[i] @ z[a] / self.own.temperature).exp() for a in others)
            losses.append(-mean([torch.log((z[i] @ z[p] / self.own.temperature).exp() / below) for p in alike]))
        return mean(losses)


# --- Methods without negatives ------------------------------------------------------------------------------------


class BYOL(Reference):
    FOLLOWERS = {"target_encoder": "encoder", "target_head": "head"}

    def loss(self, views, k):
        p = self.each(views, self.net.encoder, self.net.head, self.net.predictor)
        with torch.no_grad():
            t = self.each(views[:2], self.net.target_encoder, self.net.target_head)
        return 2 * mean([(norm(p[i]) - norm(t[j])).square().sum(1).mean() for i, j in self.crossed(views)])


class SimSiam(Reference):
    """The learning rate falls by half a cosine, but that of the predictor is constant (2011.10566, section 4.2)."""

    def rate(self, name, k):
        falling = (math.cos(math.pi * (k + 1) / (self.steps + 1)) + 1) / 2
        return self.lr * (1 if name.startswith("predictor") else falling)

    def loss(self, views, k):
        z = self.each(views, self.net.encoder, self.net.head)
        p = [self.net.predictor(x) for x in z]
        return -mean([cosine(p[i], z[j].detach()) for i, j in self.crossed(views)])


class BarlowTwins(Reference):
    """Equations 1 and 2 of 2103.03230."""

    def loss(self, views, k):
        z = self.each(views, self.net.encoder, self.net.head)
        pairs = [(0, 1)] + [(large, small) for small in range(2, len(z)) for large in (0, 1)]
        return mean([self.of_pair(z[i], z[j]) for i, j in pairs])

    def of_pair(self, a, b):
        a, b = ((x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt() for x in (a, b))
        loss = 0.0
        for i in range(a.shape[1]):
            for j in range(a.shape[1]):
                c = (a[:, i] * b[:, j]).mean()
                loss = loss + ((1 - c) ** 2 if i == j else self.own.off_diagonal * c**2)
        return loss


class VICReg(Reference):
    """Algorithm 1 of 2105.04906."""

    def loss(self, views, k):
        z = self.each(views, self.net.encoder, self.net.head)
        pairs = [(0, 1)] + [(large, small) for small in range(2, len(z)) for large in (0, 1)]
        return mean([self.of_pair(z[i], z[j]) for i, j in pairs])

    def of_pair(self, a, b):
        (n, width), own = a.shape, self.own
        loss = own.invariance * (a - b).square().mean()
        for x in (a, b):
            covariance = (x - x.mean(0)).T @ (x - x.mean(0)) / (n - 1)
            for i in range(width):
                loss = loss + own.variance * (1 - (covariance[i, i] + 1e-4).sqrt()).clamp(min=0) / width
                for j in range(width):
                    loss = loss + (own.covariance * covariance[i, j] ** 2 / width if i != j else 0)
        return loss


# --- Methods with prototypes --------------------------------------------------------------------------------------


def cross_entropy(q, scores, temperature):
    return -(q * softmax(scores / temperature).log()).sum(1).mean()


def sinkhorn(scores, epsilon):
    """Appendix A.1 of 2006.09882: three times all prototypes alike, then all images."""
    q = (scores / epsilon).exp().T
    k, n = q.shape
    q = q / q.sum()
    for _ in range(3):
        for i in range(k):
            q[i] = q[i] / q[i].sum() / k
        for j in range(n):
            q[:, j] = q[:, j] / q[:, j].sum() / n
    return n * q.T


class Frozen(Reference):
    """Prototypes are not trained in the first FROZEN steps."""

    FROZEN = 2

    def rate(self, name, k):
        return 0.0 if name == "prototypes" and k < self.FROZEN else self.lr

    def step(self, loss, k):
        gradients = super().step(loss, k)
        if k < self.FROZEN:
            self.velocity["prototypes"].zero_()
            gradients["prototypes"] = torch.zeros_like(gradients["prototypes"])
        return gradients


class SwAV(Frozen):
    def loss(self, views, k):
        z = self.each(views, self.net.encoder, self.net.head)
        self.scores = [norm(x) @ self.net.prototypes.T for x in z]
        q = [sinkhorn(x.detach(), self.own.epsilon) for x in self.scores[:2]]
        return mean([cross_entropy(q[j], self.scores[i], self.own.temperature) for i, j in self.crossed(views)])

    def after(self, k):
        self.net.prototypes.copy_(norm(self.net.prototypes))


class DINO(Frozen):
    FOLLOWERS = {
        "teacher_encoder": "encoder", "teacher_head": "head", "teacher_prototypes": "prototypes",
    }  # fmt: skip

    def loss(self, views, k):
        net, own = self.net, self.own
        self.student = [norm(x) @ norm(net.prototypes).T for x in self.each(views, net.encoder, net.head)]
        with torch.no_grad():
            made = self.each(views[:2], net.teacher_encoder, net.teacher_head)
            self.teacher = [norm(x) @ norm(net.teacher_prototypes).T for x in made]
        rise = min(k / (0.1 * self.steps), 1)
        self.temperature = own.teacher_temperature + rise * (own.teacher_temperature_end - own.teacher_temperature)
        q = [softmax((x - net.centre) / self.temperature) for x in self.teacher]
        return mean([cross_entropy(q[j], self.student[i], own.student_temperature) for i, j in self.crossed(views)])

    def after(self, k):
        super().after(k)
        m = self.own.centre_momentum
        self.net.centre.copy_(m * self.net.centre + (1 - m) * torch.cat(self.teacher).mean(0))
