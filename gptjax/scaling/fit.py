"""A scaling law from one's own runs, by the three approaches of Hoffmann et al. 2022 (arXiv:2203.15556, section 3).

    envelope      which size has the lowest loss at each compute, along all training curves    → `Allocation`
    isoflop       the best size of each budget, by a parabola in log N, then a power law        → `Allocation`
    parametric    E, A, B, alpha and beta of L(N, D) by robust regression                       → `Law`

Each has a counterpart with intervals, `with_intervals` and `parametric_with_intervals`: runs are drawn with repetition
and the fit is made again for each draw (the bootstrap).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np
import scipy  # imports scipy.optimize, which takes long, when it is first used

from gptjax.display.formatting import counted
from gptjax.errors import ConfigError
from gptjax.scaling.laws import FLOPS_PER_PARAMETER_AND_TOKEN, Allocation, Law

OWN = "own runs"
DELTA = 1e-3  # where the Huber loss of a log residual turns from a square into a line
BUDGET_GAP = 1.25  # budgets further apart than this factor are different ones
NEAREST = 5  # sizes around the lowest loss of a budget through which the parabola goes
MOST_CURVE_POINTS = 400
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Points:
    """Losses of many runs, one row each; a run has one row, or many along its training.

    Attributes:
      parameters, tokens, losses: N, D and the loss in nats per token, float [rows].
      runs: which run a row is of, int [rows].
      counts: which parameters N counts, as in `laws.Law`.
    """

    parameters: np.ndarray
    tokens: np.ndarray
    losses: np.ndarray
    runs: np.ndarray
    counts: str = "total"

    def __post_init__(self) -> None:
        """Raises ConfigError for a value that is not a positive number."""
        for name in ("parameters", "tokens", "losses"):
            values = getattr(self, name)
            wrong = values[~(np.isfinite(values) & (values > 0))]
            if wrong.size:
                raise ConfigError(f"scaling law: {name} = {wrong[0]:g}: must be a positive number")

    @property
    def flops(self) -> np.ndarray:
        return FLOPS_PER_PARAMETER_AND_TOKEN * self.parameters * self.tokens

    def __getitem__(self, rows: np.ndarray) -> Points:
        return Points(self.parameters[rows], self.tokens[rows], self.losses[rows], self.runs[rows], self.counts)

    def final(self) -> Points:
        """The last row of each run."""
        order = np.lexsort((self.tokens, self.runs))
        last = np.append(self.runs[order][1:] != self.runs[order][:-1], True)
        return self[order[last]]


def points_of(parameters: Sequence, tokens: Sequence, losses: Sequence, counts: str = "total") -> Points:
    """`Points` of one row per run."""
    n, d, loss = (np.asarray(each, float) for each in (parameters, tokens, losses))
    return Points(n, d, loss, np.arange(len(loss)), counts)


# --- 1. The envelope of training curves ------------------------------------------------------------------------------


def envelope(points: Points) -> Allocation:
    """N ∝ C^a through the sizes that have the lowest loss at each compute, for rows along the training of each run.

    Computes at which the smallest or the largest of all sizes wins are left out, since a size beyond it might win.

    Raises:
      ConfigError: fewer than two sizes win.
    """
    curves = []
    for run in np.unique(points.runs):
        rows = points[points.runs == run]
        order = np.argsort(rows.flops)
        curves.append((rows.parameters[0], np.log(rows.flops[order]), rows.losses[order]))
    sizes = np.array([size for size, _, _ in curves])
    inner = (sizes > sizes.min()) & (sizes < sizes.max())
    grid = np.linspace(min(c[0] for _, c, _ in curves), max(c[-1] for _, c, _ in curves), MOST_CURVE_POINTS)
    losses = np.array([np.interp(grid, c, loss, left=np.inf, right=np.inf) for _, c, loss in curves])
    winners = np.argmin(losses, axis=0)
    kept = (np.isfinite(losses).sum(axis=0) > 1) & inner[winners]
    if len(set(sizes[winners[kept]])) < 2:
        raise ConfigError(
            f"scaling law: of {counted(len(set(sizes)), 'size')}, fewer than two have the lowest loss at some compute "
            "between the smallest and the largest: more sizes are needed"
        )
    return _power_law(grid[kept], np.log(sizes[winners[kept]]), points.counts)


# --- 2. IsoFLOP profiles ---------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Profile:
    """The sizes tried with one budget.

    Attributes:
      flops: the budget. parameters, losses: the sizes, ascending, and their losses.
      best: the size at the lowest point of the parabola. loss: the loss there. curvature: of the loss in log N.
    """

    flops: float
    parameters: np.ndarray
    losses: np.ndarray
    best: float
    loss: float
    curvature: float

    @property
    def inside(self) -> bool:
        """Whether the lowest loss, and the lowest point, lie between the smallest and the largest size tried."""
        lowest = self.parameters[np.argmin(self.losses)]
        smallest, largest = self.parameters[0], self.parameters[-1]
        return self.curvature > 0 and smallest < self.best < largest and smallest < lowest < largest


def profiles(points: Points) -> list[Profile]:
    """One `Profile` per budget, ascending, of the final rows; budgets with fewer than three sizes are left out."""
    points = points.final()
    points = points[np.argsort(points.flops)]
    gaps = np.flatnonzero(np.diff(np.log(points.flops)) > np.log(BUDGET_GAP)) + 1
    found = []
    for rows in np.split(np.arange(len(points.flops)), gaps):
        rows = rows[np.argsort(points.parameters[rows])]
        if len(set(points.parameters[rows])) >= 3:
            found.append(_profile(points[rows]))
    return found


def _profile(points: Points) -> Profile:
    sizes, flops = np.unique(points.parameters), float(np.exp(np.mean(np.log(points.flops))))
    lowest = int(np.searchsorted(sizes, points.parameters[np.argmin(points.losses)]))
    first = min(max(lowest - NEAREST // 2, 0), max(len(sizes) - NEAREST, 0))
    near = np.isin(points.parameters, sizes[first : first + NEAREST])
    center = np.log(sizes[lowest])
    curvature, slope, height = np.polyfit(np.log(points.parameters[near]) - center, points.losses[near], 2)
    shift = -slope / (2 * curvature) if curvature > 0 else 0.0
    shift = float(np.clip(shift, *(np.log(sizes[[0, -1]]) - center)))
    best, loss = float(np.exp(center + shift)), height + slope * shift + curvature * shift**2
    return Profile(flops, points.parameters, points.losses, best, float(loss), float(curvature))


def isoflop(points: Points) -> Allocation:
    """N ∝ C^a through the best size of each budget.

    Raises:
      ConfigError: fewer than two budgets have their lowest loss inside the sizes tried; names the others.
    """
    found = profiles(points)
    inside = [profile for profile in found if profile.inside]
    if len(inside) < 2:
        outside = [f"{p.flops:.3g} FLOPs at {p.best:.3g}" for p in found if not p.inside]
        raise ConfigError(
            f"scaling law: {counted(len(inside), 'budget')} with the lowest loss inside the sizes tried: at least 2 "
            f"are needed, of 3 sizes each (lowest at an end: {', '.join(outside) or 'none'})"
        )
    computes, best = (np.log([getattr(profile, name) for profile in inside]) for name in ("flops", "best"))
    return _power_law(computes, best, points.counts)


def _power_law(log_flops: np.ndarray, log_parameters: np.ndarray, counts: str) -> Allocation:
    """Least squares in the logarithms."""
    middle = np.mean(log_flops)
    exponent, height = np.polyfit(log_flops - middle, log_parameters, 1)
    return Allocation(float(np.exp(middle)), float(np.exp(height)), float(exponent), OWN, counts)


# --- 3. The parametric fit -------------------------------------------------------------------------------------------

# The starts of the paper (appendix D.3): logarithms of A, B and E, then alpha and beta.
STARTS = np.array(
    list(
        itertools.product(
            *(np.arange(0, 30, 5.0), np.arange(0, 30, 5.0), np.arange(-1, 1.5, 0.5)),
            *(np.arange(0, 2.5, 0.5), np.arange(0, 2.5, 0.5)),
        )
    )
)
POLISHED = 30  # the starts of the lowest loss, from which the search goes on
LARGEST_EXPONENT = 4.0
LEAST_TERM = 1e-4  # nats per token: a term that adds less, in the middle of the runs, cannot be told from none


def parametric(points: Points, near: Law | None = None) -> Law:
    """E, A, B, alpha and beta with the lowest sum of Huber losses of the log residuals, by L-BFGS from many starts.

    The losses are summed, not averaged, and scaled up: otherwise L-BFGS takes their small values for convergence, which
    is how the original fit went wrong (Besiroglu et al. 2024, arXiv:2404.10102).

    Args:
      near: the only start; None: a grid of them.

    Raises:
      ConfigError: there are fewer runs than parameters, or the runs leave alpha or beta open.
    """
    if len(points.losses) < 5:
        raise ConfigError(f"scaling law: {counted(len(points.losses), 'run')}: a law has 5 constants and needs as many")
    log_n, log_d, log_loss = np.log(points.parameters), np.log(points.tokens), np.log(points.losses)
    # A and B are taken at the middle of the runs, where they hardly depend on the exponents.
    middle_n, middle_d = log_n.mean(), log_d.mean()
    objective = _Objective(log_n - middle_n, log_d - middle_d, log_loss)
    starts = STARTS if near is None else np.array([[*np.log([near.A, near.B, near.E]), near.alpha, near.beta]])
    starts = starts - np.outer(starts[:, 3], [middle_n, 0, 0, 0, 0]) - np.outer(starts[:, 4], [0, middle_d, 0, 0, 0])
    starts = starts[np.argsort(objective.values(starts), kind="stable")[:POLISHED]]
    bounds = [(None, None)] * 3 + [(0.0, LARGEST_EXPONENT)] * 2
    options = {"maxiter": 5000, "maxfun": 20_000, "ftol": 1e-13, "gtol": 1e-8}
    tried = [
        scipy.optimize.minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        for start in starts
    ]
    a, b, e, alpha, beta = min(tried, key=lambda result: result.fun).x
    for name, value, height in (("alpha", alpha, a), ("beta", beta, b)):
        if not 1e-3 < value < LARGEST_EXPONENT or height < np.log(LEAST_TERM):
            raise ConfigError(
                f"scaling law: these runs do not determine {name} ({value:.3g}, with a term of {np.exp(height):.3g} in "
                "the loss): more sizes and more budgets are needed"
            )
    E, A, B = np.exp([e, a + alpha * middle_n, b + beta * middle_d]).tolist()
    return Law(E, A, B, float(alpha), float(beta), OWN, points.counts)


@dataclasses.dataclass(frozen=True)
class _Objective:
    """The sum of Huber losses, in units of DELTA²; called with (a, b, e, alpha, beta) it also gives the gradient."""

    log_n: np.ndarray
    log_d: np.ndarray
    log_loss: np.ndarray

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        a, b, e, alpha, beta = x
        terms = np.stack([a - alpha * self.log_n, b - beta * self.log_d, np.full_like(self.log_n, e)])
        predicted = np.logaddexp.reduce(terms)
        share = np.exp(terms - predicted)
        residual = (self.log_loss - predicted) / DELTA
        slope = -np.clip(residual, -1, 1) / DELTA
        by_term = share * slope
        # No products of matrices: on arrays this small, a library's threads cost more than the sums.
        gradient = [*by_term.sum(axis=1), -(by_term[0] * self.log_n).sum(), -(by_term[1] * self.log_d).sum()]
        return float(_huber(residual).sum()), np.array(gradient)

    def values(self, x: np.ndarray) -> np.ndarray:
        """The objective of each row of x [starts, 5]."""
        a, b, e, alpha, beta = x.T[:, :, None]
        predicted = np.logaddexp(np.logaddexp(a - alpha * self.log_n, b - beta * self.log_d), e)
        return _huber((self.log_loss - predicted) / DELTA).sum(axis=1)


def _huber(residual: np.ndarray) -> np.ndarray:
    """The Huber loss with delta 1."""
    size = np.abs(residual)
    return np.where(size <= 1, 0.5 * size**2, size - 0.5)


# --- Intervals -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Fit(Generic[T]):
    """A law with its spread.

    Attributes:
      law: the fit to all runs. samples: the fits to draws of the runs.
      residuals: log of loss / predicted loss, of the final row of each run; empty for an `Allocation`.
    """

    law: T
    samples: Sequence[T]
    residuals: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))

    def interval(self, of: Callable[[T], float], level: float = 0.9) -> tuple[float, float]:
        """The lowest and highest value of `of(law)` in the middle `level` of the samples."""
        return _middle(np.array([of(sample) for sample in self.samples]), level)


def loss_interval(fit: Fit[Law], parameters: float, tokens: float, level: float = 0.9) -> tuple[float, float]:
    """Where the loss of one further run should lie: the spread of the law, and of single runs around it."""
    laws = np.array([sample.loss(parameters, tokens) for sample in fit.samples])
    return _middle(np.outer(laws, np.exp(fit.residuals)), level)


def parametric_with_intervals(points: Points, samples: int = 200, seed: int = 0) -> Fit[Law]:
    """`parametric` of the final rows, and of draws of the runs."""
    points = points.final()
    law = parametric(points)
    fit = with_intervals(lambda drawn: parametric(drawn, near=law), points, samples, seed)
    predicted = law.loss(points.parameters, points.tokens)
    return Fit(law, fit.samples, np.log(points.losses / predicted))


def with_intervals(method: Callable[[Points], T], points: Points, samples: int = 200, seed: int = 0) -> Fit[T]:
    """`method(points)`, and the same for `samples` draws of as many runs, with repetition.

    A draw that allows no fit (too few sizes of a budget) is replaced by another.

    Raises:
      ConfigError: as `method` does, or most draws allow no fit.
    """
    law, tries = method(points), 0
    found: list[T] = []
    generator = np.random.default_rng(seed)
    rows_of = [np.flatnonzero(points.runs == run) for run in np.unique(points.runs)]
    while len(found) < samples:
        tries += 1
        drawn = [rows_of[index] for index in generator.integers(0, len(rows_of), len(rows_of))]
        # A run that is drawn twice counts as two.
        numbered = dataclasses.replace(
            points[np.concatenate(drawn)], runs=np.repeat(np.arange(len(drawn)), [len(rows) for rows in drawn])
        )
        try:
            found.append(method(numbered))
        except ConfigError as error:
            if tries > 10 + 4 * samples:
                raise ConfigError(f"scaling law: most draws of the runs allow no fit: {error}") from None
    return Fit(law, found)


def _middle(values: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
