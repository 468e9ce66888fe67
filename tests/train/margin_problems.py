"""Problems for support vector machines, mild and hard, drawn from a seed."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.models.hinge import Floats, NumpyOracle, Rows, binary_rows, regression_rows
from parallel_tunes.train.margin import primal


class Problem(NamedTuple):
    """Features with a planted answer.

    Args:
        num_rows, num_features: its size.
        C: what errors cost.
        condition: the largest feature's deviation over the smallest one's.
        noise: deviation of what nothing explains; 0: separable.
        share: of the rows that are of the class told from the other.
        zero_share: of the rows that count for nothing.
        order: how rows are sorted: drawn, class, feature.
        kind: of classes: binary; of numbers: regression.
    """

    num_rows: int
    num_features: int = 5
    C: float = 0.1
    condition: float = 1.0
    noise: float = 1.0
    share: float = 0.5
    zero_share: float = 0.0
    order: str = "drawn"
    kind: str = "binary"
    seed: int = 0

    def draw(self, num_rows: int, seed: int) -> tuple[Floats, Floats]:
        """Features (num_rows, num_features) and what is to be learnt (num_rows,), as a number: a class if it is above the rest."""
        w = np.random.default_rng(self.seed).standard_normal(self.num_features)
        rng = np.random.default_rng([self.seed, seed])
        features = rng.standard_normal((num_rows, self.num_features))
        answers = features @ w / np.linalg.norm(w) + self.noise * rng.standard_normal(num_rows)
        return features * np.geomspace(1, self.condition, self.num_features), answers

    def rows(self, loss: str, dtype: Any = np.float64) -> Rows:
        """Its rows."""
        features, answers = self.draw(self.num_rows, 1)
        keys = {"drawn": np.arange(self.num_rows), "class": answers, "feature": features[:, 0]}[self.order]
        order = np.argsort(keys, kind="stable")
        features, answers = features[order].astype(dtype), answers[order]
        counts = np.where(np.random.default_rng(2).random(self.num_rows) < self.zero_share, 0, self.C)
        if self.kind == "regression":
            return regression_rows(features, answers, counts, loss, 0.1)
        return binary_rows(features, self.split(answers), counts, loss)

    def split(self, answers: Floats) -> NDArray[np.bool_]:
        """Which of the rows are of the class."""
        return np.asarray(answers > np.quantile(answers, 1 - self.share))

    def held_out(self, num_rows: int = 6000) -> Floats:
        """Features of other rows."""
        return self.draw(num_rows, 3)[0]


def objective_of(rows: Rows, w: Floats) -> float:
    """P(w) in float64."""
    return primal(w, NumpyOracle(rows.astype(np.float64)).query(w, 1.0).loss)


def answer(features: Floats, w: Floats) -> Floats:
    """Margins, shape (num_rows,)."""
    return np.asarray(features @ w[:-1] + w[-1])
