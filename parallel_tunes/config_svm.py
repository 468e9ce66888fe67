"""The keys of task=genre learner=svm: genres told from rows of descriptors by support vector machines."""

from __future__ import annotations

from dataclasses import dataclass

from parallel_tunes.schema import key

# words that go without saying in a variant, whose group of that name has options of its own
GIVEN = {("genre_svm", "task=genre")}


@dataclass(frozen=True, kw_only=True)
class GenreTableConfig:
    name: str = key("what is learnt", choices=("genre",))
    features: tuple[str, ...] = key("columns learnt from; [descriptors]: the 57; [all]: all that are numbers")
    resamples: int = key("bootstrap resamples behind each interval", low=20, high=100000)


@dataclass(frozen=True, kw_only=True)
class SvmConfig:
    name: str = key("learner: support vector machines, one class against the rest", choices=("svm",))
    kernel: str = key("rbf: a radial kernel, by scikit-learn; linear: by learner.back_end", choices=("linear", "rbf"))
    back_end: str = key("linear: what solves it", choices=("numba", "numpy", "cuda", "sklearn"))
    C: float | str = key(
        "what errors cost; auto: the best of learner.candidates in cross-validation",
        low=1e-9, high=1e9, choices=("auto",),
    )  # fmt: skip
    gamma: float | str = key(
        "rbf: how narrow, in units of scikit-learn's scale, 1 / (columns · variance); auto: the best of learner.gammas",
        low=1e-9, high=1e9, choices=("auto",),
    )  # fmt: skip
    pca: float | None = key(
        "learn from principal components: 20 is so many, 0.95 as many as hold this share of the variance; null: none",
        low=1e-6, high=1e6,
    )  # fmt: skip
    class_weight: str = key(
        "balanced: errors cost more in rarer classes, as in scikit-learn", choices=("none", "balanced")
    )
    folds: int = key("folds of the cross-validation inside the training tracks", low=2, high=100)
    candidates: tuple[float, ...] = key("values of learner.C that it chooses from", low=1e-9, high=1e9)
    gammas: tuple[float, ...] = key("values of learner.gamma that it chooses from", low=1e-9, high=1e9)
    search_rows: int = key("most training tracks, drawn at random, that it is done on", low=10)
    tolerance: float = key("relative duality gap at which a linear machine is done", low=1e-12, high=1)
    max_s: float = key("most seconds a fit of it", low=0.001)
    seed: int = key("seed of folds and draws", low=0)
    device: str = key("where tensors of several ranks are", choices=("cpu",))
