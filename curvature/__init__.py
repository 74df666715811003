"""Measure and believe: what batches say of f, ∇f and ∇²f·v, and what a filter makes of it."""

from ._batch_statistics import BatchStatistics
from ._check_per_example import check_per_example
from ._covariance import COVARIANCES, Covariance
from ._derivatives import Differentiation, directional_derivatives, gradient_and_product, hvp
from ._exact import exact
from ._gaussian import (
    GradientBelief,
    ValueBelief,
    correct_gradient,
    correct_value,
    predict_gradient,
    predict_value,
)
from ._line import LineBelief, observe
from ._mapped_axis import AxisName
from ._moments import Moments, mean_and_variance, merge_moments, moments, variance_of_mean
from ._per_example import PerExample, per_example
from ._sketched import sketched
from ._tree import quadratic_form
from ._validation import ValueFn
from ._weighted import weighted

__all__ = [
    "COVARIANCES",
    "AxisName",
    "BatchStatistics",
    "Covariance",
    "Differentiation",
    "GradientBelief",
    "LineBelief",
    "Moments",
    "PerExample",
    "ValueBelief",
    "ValueFn",
    "check_per_example",
    "correct_gradient",
    "correct_value",
    "directional_derivatives",
    "exact",
    "gradient_and_product",
    "hvp",
    "mean_and_variance",
    "merge_moments",
    "moments",
    "observe",
    "per_example",
    "predict_gradient",
    "predict_value",
    "quadratic_form",
    "sketched",
    "variance_of_mean",
    "weighted",
]
