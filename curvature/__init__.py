"""What is known about f, ∇f and ∇²f·v: measurement and filtering."""

from ._batch_statistics import BatchStatistics
from ._check_per_example import check_per_example
from ._covariance import Covariance
from ._dense import (
    DenseStatistics,
    dense_gradient_filter,
    dense_statistics,
    dense_value_filter,
)
from ._directional import DirectionalStatistics, directional, directional_derivatives
from ._exact import exact
from ._gradient_filter import GradientBelief, correct_gradient, predict_gradient
from ._moments import Moments, mean_and_variance, merge_moments, moments, variance_of_mean
from ._per_example import PerExample, per_example
from ._products import gradient_and_product, hvp
from ._sketched import sketched
from ._validation import ValueFn
from ._value_filter import ValueBelief, correct_value, predict_value

__all__ = [
    "BatchStatistics",
    "Covariance",
    "DenseStatistics",
    "DirectionalStatistics",
    "GradientBelief",
    "Moments",
    "PerExample",
    "ValueBelief",
    "ValueFn",
    "check_per_example",
    "correct_gradient",
    "correct_value",
    "dense_gradient_filter",
    "dense_statistics",
    "dense_value_filter",
    "directional",
    "directional_derivatives",
    "exact",
    "gradient_and_product",
    "hvp",
    "mean_and_variance",
    "merge_moments",
    "moments",
    "per_example",
    "predict_gradient",
    "predict_value",
    "sketched",
    "variance_of_mean",
]
