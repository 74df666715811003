from typing import NamedTuple

import jax

from ._tree import PyTree


class BatchStatistics(NamedTuple):
    """What one minibatch says at θ, and along the displacement δ that led there.

    Means are over the n examples of the batch; variances are of these means (`_moments.py`
    states the normalization) and have the structure of the chosen covariance: a prefix of the
    parameters. Everything is float32 or wider.

    Attributes:
      value: mean loss y, scalar.
      value_variance: r, variance of y, scalar.
      gradient: mean gradient g, a tree like the parameters.
      gradient_variance: Σ, covariance of g; in scalar form tr Σ / D.
      product: mean Hessian-vector product Bδ, a tree like the parameters.
      product_variance: Q, covariance of Bδ; in scalar form tr Q / D.
      slope: g·δ, scalar.
      slope_variance: Var_i(g_i·δ)/n, scalar.

    Source: Chen et al. (2020), arXiv 2011.04803, section 3.
    """

    value: jax.Array
    value_variance: jax.Array
    gradient: PyTree
    gradient_variance: PyTree
    product: PyTree
    product_variance: PyTree
    slope: jax.Array
    slope_variance: jax.Array
