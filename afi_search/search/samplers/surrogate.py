"""A model of the learned objective over the points of a grid."""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from afi_search.search.samplers.choice_grid import Floats

_RADII = (0.15, 0.5)
_WEIGHTS = (0.03, 0.3, 1.0)
_NOISES = (0.03, 0.1, 0.3)
"""The radial part's radius in shares of choices; its weight and the noise in variances."""
_COST_WEIGHT = 0.3


class Surrogate:
    """A Gaussian process over choices and the logarithm of costs.

    Its kernel is a sum: exponential in the number of choices that differ, and linear in the costs.
    Radius, weight and noise are those of largest marginal likelihood on a small grid.

    Of n points it takes n x features, n x costs, n values and the variance of each, besides the
    noise that all share.

    Source: Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, chapter 2.
    """

    def __init__(self, features: Floats, cost: Floats, value: Floats, variance: Floats) -> None:
        self._features = features
        self._mean, self._scale = value.mean(), max(value.std(), 1e-9)
        log_cost = _logarithm(cost)
        self._cost_mean = log_cost.mean(axis=0)
        self._cost_scale = np.maximum(log_cost.std(axis=0), 1e-9)
        self._cost = self._standard(cost)
        target = (value - self._mean) / self._scale
        same, by_cost = self._likeness(features, cost)
        best = -np.inf
        shared = _COST_WEIGHT * by_cost + 1
        for radius in _RADII:
            near = np.exp((same - 1) / radius)
            for weight, noise in product(_WEIGHTS, _NOISES):
                kernel = weight * near + shared
                kernel[np.diag_indices_from(kernel)] += variance / self._scale**2 + noise
                factor, _ = cho_factor(kernel, lower=True, overwrite_a=True, check_finite=False)
                weights = cho_solve((factor, True), target, check_finite=False)
                likelihood = -0.5 * target @ weights - np.log(np.diag(factor)).sum()
                if likelihood > best:
                    best = likelihood
                    self._factor, self._weights = factor, weights
                    self.hyperparameters = radius, weight, noise

    def predict(self, features: Floats, cost: Floats) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the value at m points, without the noise."""
        radius, weight, _ = self.hyperparameters
        same, by_cost = self._likeness(features, cost)
        kernel = weight * np.exp((same - 1) / radius) + _COST_WEIGHT * by_cost + 1
        own = weight + 1 + _COST_WEIGHT * (self._standard(cost) ** 2).sum(axis=1)
        known = solve_triangular(self._factor, kernel.T, lower=True, check_finite=False)
        variance = np.maximum(own - (known**2).sum(axis=0), 1e-9)
        mean = kernel @ self._weights * self._scale + self._mean
        return mean, np.sqrt(variance) * self._scale

    def _likeness(self, features: Floats, cost: Floats) -> tuple[Floats, Floats]:
        """Return m x n: 1 less the share of choices that differ, and the products of costs."""
        shared = features @ self._features.T
        distance = self._own(features)[:, None] + self._own(self._features) - 2 * shared
        return 1 - distance / 2, self._standard(cost) @ self._cost.T

    @staticmethod
    def _own(features: Floats) -> Floats:
        return np.asarray((features**2).sum(axis=1))

    def _standard(self, cost: Floats) -> Floats:
        return (_logarithm(cost) - self._cost_mean) / self._cost_scale


def _logarithm(cost: Floats) -> Floats:
    """Return costs on a scale of ratios where they are positive."""
    return np.where(cost > 0, np.log(np.maximum(cost, 1e-300)), cost)
