from typing import NamedTuple

import jax
import jax.numpy as jnp


class LineModel(NamedTuple):
    """Gaussian model of the change of the loss along a direction d, as a function of the step α.

        Δ(α) ~ N(−α a + ½ α² h,  2s + α² p + ¼ α⁴ q)

    All attributes are scalars. Lengths and losses may be in any units, used consistently.

    Attributes:
      slope: a = −d·∇f, expected descent per unit of α.
      curvature: h = d·Bd, of any sign.
      slope_variance: p = d·Pd.
      curvature_variance: q = d·Qd.
      value_variance: s, variance of the filtered loss at one point; a change involves two.

    Source: Chen et al. (2020), arXiv 2011.04803, section 4.
    """

    slope: jax.Array
    curvature: jax.Array
    slope_variance: jax.Array
    curvature_variance: jax.Array
    value_variance: jax.Array

    def change(self, step_size: jax.Array) -> jax.Array:
        """Mean of Δ(α), −α a + ½ α² h."""
        return step_size * (0.5 * step_size * self.curvature - self.slope)

    def change_std(self, step_size: jax.Array) -> jax.Array:
        """Standard deviation of Δ(α) that the step itself brings, √(α² p + ¼ α⁴ q)."""
        spread = self.slope_variance + 0.25 * jnp.square(step_size) * self.curvature_variance
        return jnp.abs(step_size) * jnp.sqrt(spread)
