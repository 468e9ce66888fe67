"""Linear support vector machines in the primal: objective, gradient, and the dual that certifies them, in NumPy.

    P(w) = ½‖w‖² + Σᵢ cᵢ ℓ(zᵢ),   zᵢ = qᵢ − sᵢ w·x̂ᵢ,   ℓ(z) = max(0, z), hinge, or max(0, z)², squared hinge

x̂ is a row and a 1 behind it, whose weight is the bias: it is regularised like the others, as liblinear does it. For
classification s = ±1 and q = 1. Regression on y that forgives errors below ε (Vapnik's ε-insensitive loss, 1995) is the same
problem of twice the rows: s = 1, q = y − ε, and s = −1, q = −y − ε.

For any 0 ≤ αᵢ ≤ cᵢ (squared hinge: αᵢ ≥ 0) and w_α = Σᵢ αᵢ sᵢ x̂ᵢ,

    D(α) = Σᵢ αᵢ qᵢ − ½‖w_α‖²   (squared hinge: − Σᵢ αᵢ²/4cᵢ)

is at most the least P (Hsieh et al. 2008, eq. 2 to 4), so P(w) − D(α) bounds how far w is from the best: the duality gap.
The hinge has no second derivative; solvers work on the hinge smoothed within γ/2 of its corner (Nesterov 2005; a Huber loss),

    ℓ_γ(z) = max over 0 ≤ a ≤ 1 of a z + γ/2 (a − a²),   whose slope a = clip(z/γ + ½, 0, 1) gives a feasible αᵢ = cᵢ a.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Array = NDArray[Any]  # float32 or float64
LOSSES = ("hinge", "squared_hinge")


@dataclass(frozen=True)
class Rows:
    """The rows of a problem, or some of them; arrays of one type, float32 or float64.

    Args:
        features: (num_rows, num_features), C-contiguous, without the column of ones.
        signs: (num_rows,), s: 1 or −1.
        offsets: (num_rows,), q.
        weights: (num_rows,), c ≥ 0: C times what the row counts for.
        loss: one of LOSSES.
        ids: (num_rows,), numbers of the rows among those of all ranks, by which samples are drawn.
    """

    features: Array
    signs: Array
    offsets: Array
    weights: Array
    loss: str
    ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.signs)

    @property
    def num_weights(self) -> int:
        """Weights to be learnt: one a feature, and the bias."""
        return int(self.features.shape[1]) + 1

    def take(self, rows: NDArray[np.int64]) -> Rows:
        """Some of the rows, copied."""
        # np.take is several times quicker than an index, which copies through an iterator
        signs, offsets, weights = (np.take(array, rows) for array in (self.signs, self.offsets, self.weights))
        return Rows(np.take(self.features, rows, axis=0), signs, offsets, weights, self.loss, np.take(self.ids, rows))

    def astype(self, kind: type[np.floating[Any]]) -> Rows:
        """The same in another type."""
        one = partial(np.asarray, dtype=kind)
        return Rows(one(self.features), one(self.signs), one(self.offsets), one(self.weights), self.loss, self.ids)

    def slack(self, w: Floats) -> Array:
        """z, shape (num_rows,)."""
        w = w.astype(self.features.dtype)
        return np.asarray(self.offsets - self.signs * (self.features @ w[:-1] + w[-1]))

    def dual(self, slack: Array, smoothing: float) -> Array:
        """α, shape (num_rows,): the feasible one that the slope of the (smoothed) loss gives."""
        if self.loss == "hinge":
            return np.asarray(self.weights * np.clip(slack / smoothing + 0.5, 0, 1), self.features.dtype)
        return np.asarray(2 * self.weights * np.maximum(slack, 0), self.features.dtype)

    def curvature(self, slack: Array, smoothing: float, chosen: Any = slice(None)) -> Array:
        """Second derivative of the loss of each row, or of the chosen ones."""
        if self.loss == "hinge":
            return np.where(np.abs(slack) < smoothing / 2, self.weights[chosen] / self.weights.dtype.type(smoothing), 0)
        return np.where(slack > 0, 2 * self.weights[chosen], 0)

    def curved(self, slack: Array, smoothing: float) -> NDArray[np.int64]:
        """The rows whose loss is curved."""
        is_curved = np.abs(slack) < smoothing / 2 if self.loss == "hinge" else (slack > 0) & (self.weights > 0)
        return np.flatnonzero(is_curved)

    def thin(self, rows: NDArray[np.int64], every: int) -> NDArray[np.int64]:
        """About each `every`-th of some rows, the same ones however the rows are shared among ranks."""
        if every == 1:
            return rows
        drawn = np.take(self.ids, rows).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)
        return rows[drawn < np.uint64(2**32 // every)]

    def combine(self, factors: Array) -> Floats:
        """Σ factorᵢ sᵢ x̂ᵢ, shape (num_weights,)."""
        signed = factors * self.signs
        return np.append(signed @ self.features, signed.sum(dtype=np.float64)).astype(np.float64)


class Sums(NamedTuple):
    """What one pass over all rows gives; every part is a sum over rows, so that those of ranks add up."""

    loss: float  # Σ c ℓ(z)
    smooth_loss: float  # Σ c ℓ_γ(z)
    linear: float  # Σ α q
    square: float  # Σ α²/4c, squared hinge only
    combined: Floats  # w_α, (num_weights,)

    @classmethod
    def of(cls, flat: Floats) -> Sums:
        """From the flat array that they are summed over ranks in."""
        loss, smooth_loss, linear, square = flat[:4].tolist()
        return cls(loss, smooth_loss, linear, square, flat[4:])

    def flat(self) -> Floats:
        """All of them, shape (4 + num_weights,)."""
        return np.concatenate(([self.loss, self.smooth_loss, self.linear, self.square], self.combined))


class Oracle(Protocol):
    """What a back end does: the sums over its rows. Solvers need no more of it."""

    rows: Rows

    @property
    def slack(self) -> Array:
        """z of the last query, shape (num_rows,)."""
        ...

    def query(self, w: Floats, smoothing: float) -> Sums:
        """The sums at w, shape (num_weights,); `smoothing` is γ."""
        ...

    def curve(self, smoothing: float, every: int) -> Floats:
        """Σ ℓ″ᵢ x̂ᵢ x̂ᵢᵀ where the last query was, (num_weights, num_weights); from each `every`-th row that is curved."""
        ...

    def shift(self, smoothing: float, step: Floats) -> Floats:
        """How the sums of the dual change if α follows a step of w to first order: linear, square, combined (2 + num_weights,)."""
        ...


class NumpyOracle:
    """The back end `numpy`: two products with the whole matrix a pass, written to be read."""

    def __init__(self, rows: Rows) -> None:
        self.rows, self.slack = rows, np.empty(0, rows.features.dtype)

    def query(self, w: Floats, smoothing: float) -> Sums:
        """The sums at w; `smoothing` is γ."""
        rows, slack = self.rows, self.rows.slack(w)
        alpha = rows.dual(slack, smoothing)
        self.slack, over = slack, np.maximum(slack, 0)
        linear, combined = float(np.dot(alpha, rows.offsets)), rows.combine(alpha)
        if rows.loss == "hinge":
            share = np.divide(alpha, rows.weights, out=np.zeros_like(alpha), where=rows.weights > 0)
            rounded = smoothing / 2 * float(np.dot(alpha, 1 - share))
            return Sums(float(np.dot(rows.weights, over)), float(np.dot(alpha, slack)) + rounded, linear, 0.0, combined)
        loss = float(np.dot(rows.weights, over * over))
        return Sums(loss, loss, linear, loss, combined)

    def curve(self, smoothing: float, every: int) -> Floats:
        """Second derivatives where the last query was."""
        chosen = self.rows.thin(self.rows.curved(self.slack, smoothing), every)
        return gram(
            np.take(self.rows.features, chosen, axis=0),
            every * self.rows.curvature(self.slack[chosen], smoothing, chosen),
        )

    def shift(self, smoothing: float, step: Floats) -> Floats:
        """How the dual's sums change with a step."""
        chosen = self.rows.curved(self.slack, smoothing)
        part, slack = self.rows.take(chosen), self.slack[chosen]
        before, w = part.dual(slack, smoothing), step.astype(slack.dtype)
        after = before - part.curvature(slack, smoothing) * part.signs * (part.features @ w[:-1] + w[-1])
        after = np.clip(after, 0, part.weights if part.loss == "hinge" else None)
        square = (
            0.0 if part.loss == "hinge" else float(((after**2 - before**2) / (4 * part.weights)).sum(dtype=np.float64))
        )
        return np.concatenate([[float(np.dot(after - before, part.offsets)), square], part.combine(after - before)])


class TiltedOracle:
    """A problem and a linear term that makes up for what it lacks: the sums it is short of at one w.

    Args:
        oracle: the back end of the problem.
        tilt: sums to be added where w is `at`.
    """

    def __init__(self, oracle: Oracle, tilt: Sums, at: Floats) -> None:
        self.oracle, self.tilt, self.at, self.rows = oracle, tilt, at, oracle.rows

    @property
    def slack(self) -> Array:
        """z at the last query."""
        return self.oracle.slack

    def query(self, w: Floats, smoothing: float) -> Sums:
        """The sums at w; `smoothing` is γ."""
        sums, tilt = self.oracle.query(w, smoothing), self.tilt
        along = float((w - self.at) @ tilt.combined)
        return Sums(
            sums.loss + tilt.loss - along, sums.smooth_loss + tilt.smooth_loss - along,
            sums.linear + tilt.linear, sums.square + tilt.square, sums.combined + tilt.combined,
        )  # fmt: skip

    def curve(self, smoothing: float, every: int) -> Floats:
        """Second derivatives where the last query was."""
        return self.oracle.curve(smoothing, every)

    def shift(self, smoothing: float, step: Floats) -> Floats:
        """How the dual's sums change with a step."""
        return self.oracle.shift(smoothing, step)


def gram(features: Array, weights: Array) -> Floats:
    """Σ weightᵢ x̂ᵢ x̂ᵢᵀ, shape (num_weights, num_weights)."""
    roots = np.sqrt(weights)
    scaled = features * roots[:, None]
    product = np.empty((features.shape[1] + 1,) * 2)
    product[:-1, :-1] = scaled.T @ scaled
    product[-1, :-1] = product[:-1, -1] = roots @ scaled
    product[-1, -1] = weights.sum(dtype=np.float64)
    return product


def binary_rows(features: Array, targets: NDArray[np.bool_], weights: Array | float, loss: str) -> Rows:
    """The problem of telling `targets`, shape (num_rows,), from the others."""
    kind, num = features.dtype, len(targets)
    counts = np.broadcast_to(np.asarray(weights, kind), num).copy()
    return Rows(
        np.ascontiguousarray(features),
        np.where(targets, 1, -1).astype(kind),
        np.ones(num, kind),
        counts,
        loss,
        np.arange(num),
    )


def regression_rows(features: Array, targets: Floats, weights: Array | float, loss: str, epsilon: float) -> Rows:
    """The problem of coming within `epsilon` of `targets`, shape (num_rows,); twice the rows."""
    kind, num = features.dtype, len(targets)
    signs = np.repeat(np.array([1, -1], kind), num)
    weights = np.broadcast_to(np.asarray(weights, kind), num)
    offsets = np.concatenate([targets - epsilon, -targets - epsilon]).astype(kind)
    return Rows(
        np.ascontiguousarray(np.concatenate([features, features])),
        signs,
        offsets,
        np.concatenate([weights, weights]),
        loss,
        np.arange(2 * num),
    )
