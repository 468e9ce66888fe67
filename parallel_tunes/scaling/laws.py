"""Laws of scaling, fitted to measured rates, and how far they may be believed.

With B_k(N) of the table below, each law of the rate X of N GPUs is log X = log λ + log N ± log(1 + Σ θ_k B_k(N)), λ the
rate of one GPU. It is fitted like the other parameters, so that the error of the baseline is in their intervals.

    amdahl     X = λ / (s + (1-s)/N)               s: serial share of one GPU's step; the work is fixed
    gustafson  X = λ (N - s (N-1))                 s: serial share of the step; the work grows with N
    usl        X = λ N / (1 + σ (N-1) + κ N (N-1))  σ: contention, κ: coherency (crosstalk)

Amdahl 1967, "Validity of the single processor approach to achieving large scale computing capabilities"; Gustafson 1988,
"Reevaluating Amdahl's law"; Gunther 2007, "Guerrilla Capacity Planning", chapter 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from parallel_tunes.scaling.intervals import Interval

Array = npt.NDArray[np.float64]
REACH = 2  # times the largest N measured: a law says nothing beyond
DESCRIPTIVE = 4  # the largest N up to which a law describes what was measured, and foretells nothing
LEVEL = 0.95  # of intervals
VAGUE = 10.0  # a law whose rate of one GPU is not known to within this factor is not told
ROUNDING = 1e-6  # relative: launches that agree better than this tell nothing of chance


class Refusal(ValueError):
    """Why a law cannot be told from these measurements."""


@dataclass(frozen=True)
class Law:
    """A law as the module's equation has it.

    Args:
        title: as written in a sentence.
        names: of its parameters θ.
        sign: of the logarithm.
        basis: from N, shape (num,), to the B_k, shape (num, len(names)).
    """

    title: str
    names: tuple[str, ...]
    sign: int
    basis: Callable[[Array], Array]


LAWS = {
    "amdahl": Law("Amdahl", ("serial_share",), -1, lambda n: np.stack([n - 1], axis=-1)),
    "gustafson": Law("Gustafson", ("serial_share",), 1, lambda n: np.stack([(1 - n) / n], axis=-1)),
    "usl": Law("USL", ("contention", "coherency"), -1, lambda n: np.stack([n - 1, n * (n - 1)], axis=-1)),
}


@dataclass(frozen=True)
class Fit:
    """A law with its parameters.

    Args:
        law: its name in LAWS.
        parameters: by name; a negative one is more than proportional scaling, which the law allows no cause for.
        rate_of_one: samples/s of one GPU, as fitted.
        largest: N measured.
        is_off: the rates lie farther from the law than launches of one N differ by chance.
    """

    law: str
    parameters: dict[str, Interval]
    rate_of_one: Interval
    largest: int
    is_off: bool

    @property
    def is_descriptive(self) -> bool:
        return self.largest <= DESCRIPTIVE

    def rate(self, n: float) -> float:
        """Samples/s of `n` GPUs.

        Raises:
            ValueError: beyond twice the largest N measured, or where the law with these parameters has no rate.
        """
        if not 1 <= n <= REACH * self.largest:
            raise ValueError(f"a law fitted up to N={self.largest} says nothing of N={n:g}")
        law = LAWS[self.law]
        inner = float(1 + law.basis(np.array([float(n)]))[0] @ [each.median for each in self.parameters.values()])
        if inner <= 0:
            raise ValueError(f"{law.title} with these parameters has no rate at N={n:g}")
        return float(self.rate_of_one.median * n * inner**law.sign)

    def curve(self, num: int = 60) -> list[tuple[float, float]]:
        """N and samples/s, from one GPU to twice the largest N measured, or up to where the law still has a rate."""
        points = []
        for n in np.linspace(1, REACH * self.largest, num):
            try:
                points.append((float(n), self.rate(n)))
            except ValueError:
                break
        return points


def fit(law: str, nums: Sequence[int], rates: Sequence[float]) -> Fit:
    """Least squares on the logarithm of the rate, as errors are relative; intervals from Student's t and the Jacobian.

    Args:
        law: a name in LAWS.
        nums: shape (num_points,), numbers of GPUs.
        rates: shape (num_points,), samples/s, one point a launch.

    Raises:
        Refusal: the law cannot be told: too few numbers of GPUs, or no repetition to tell its error from.
    """
    form, n, x = LAWS[law], np.asarray(nums, dtype=np.float64), np.asarray(rates, dtype=np.float64)
    num_parameters, num_distinct = 1 + len(form.names), len(set(nums))
    if num_distinct < num_parameters:
        raise Refusal(f"{form.title} needs {num_parameters} different N, not {num_distinct}")
    if len(n) <= num_parameters:
        raise Refusal(f"{form.title} needs more than {num_parameters} launches, not {len(n)}, for an error to be told")
    if not (np.isfinite(x).all() and (x > 0).all()):
        raise Refusal("a rate that is not positive has no logarithm")
    values, errors, squares = _least_squares(form, n, x)
    reach = stats.t.ppf((1 + LEVEL) / 2, len(n) - num_parameters) * errors
    if not (np.isfinite(reach).all() and reach[0] <= np.log(VAGUE)):
        raise Refusal(f"these rates differ too much from one another, or from {form.title}, for it to be told")
    around = np.stack([values, values - reach, values + reach], axis=-1)
    parameters = {name: Interval(*map(float, row)) for name, row in zip(form.names, around[1:], strict=True)}
    rate_of_one = Interval(*map(float, np.exp(around[0])))
    return Fit(law, parameters, rate_of_one, int(n.max()), _is_off(n, x, squares, num_parameters))


def _least_squares(law: Law, n: Array, x: Array) -> tuple[Array, Array, float]:
    """log λ and θ, their standard errors, both of shape (1 + num_parameters,), and the sum of squares that is left."""
    basis = law.basis(n)

    def residuals(values: Array) -> Array:
        # of parameters without a rate NaN, on which the search takes a shorter step
        with np.errstate(invalid="ignore"):
            return np.asarray(values[0] + np.log(n) + law.sign * np.log(1 + basis @ values[1:]) - np.log(x))

    def jacobian(values: Array) -> Array:
        return np.column_stack([np.ones_like(n), law.sign * basis / (1 + basis @ values[1:])[:, None]])

    proportional = np.array([np.log(x / n).mean(), *np.zeros(len(law.names))])
    found = optimize.least_squares(residuals, proportional, jac=jacobian, x_scale="jac", xtol=1e-12, ftol=1e-12)
    # the covariance of least squares, (JᵀJ)⁻¹ times the variance, by way of J's singular values: infinite where J has a zero
    _, sizes, rows = np.linalg.svd(found.jac, full_matrices=False)
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.sqrt(((rows.T / sizes) ** 2).sum(axis=1) * 2 * found.cost / (len(n) - len(found.x)))
    return np.asarray(found.x), errors, 2 * float(found.cost)


def _is_off(n: Array, x: Array, squares: float, num_parameters: int) -> bool:
    """Whether a law's sum of squares is more than launches of one N differ by chance: the F test of lack of fit.

    Draper & Smith 1998, "Applied Regression Analysis", section 2.1; at 1 %.
    """
    alike = [np.log(x[n == each]) for each in np.unique(n)]
    spare, repeats = len(alike) - num_parameters, len(n) - len(alike)
    if not spare or not repeats:
        return False
    pure = max(sum(float(((each - each.mean()) ** 2).sum()) for each in alike), repeats * ROUNDING**2)
    return bool(stats.f.sf((squares - pure) / spare / (pure / repeats), spare, repeats) < 0.01)
