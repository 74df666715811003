"""Hyperparameters of a Gaussian process, by their marginal likelihood.

Modeled on tinygp's tutorial `modeling.ipynb`, at its size: sgd(3e-3), 1,001 steps, all of 46 noisy
points at every step, a quasi-periodic kernel plus a Matérn-3/2 kernel, 7 parameters that begin
at 0. The loss has no noise: it is handed to `adameka` as a scalar.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .program import Program, begin

NAMES = ("mean", "log_jitter", "log_sigma1", "log_rho1", "log_tau", "log_sigma2", "log_rho2")
JITTER = 1e-5  # keeps the covariance positive definite in single precision


def _negative_log_likelihood(params, data):
    x, y, error = data
    sigma1, rho1, tau, sigma2, rho2 = (jnp.exp(params[name]) for name in NAMES[2:])
    distance = jnp.abs(x[:, None] - x[None, :])
    periodic = jnp.exp(-0.5 * (distance / tau) ** 2) * jnp.cos(2 * jnp.pi * distance / rho1)
    scaled = jnp.sqrt(3.0) * distance / rho2
    covariance = sigma1**2 * periodic + sigma2**2 * (1 + scaled) * jnp.exp(-scaled)
    covariance += jnp.diag(error**2 + jnp.exp(params["log_jitter"]) + JITTER)
    mean = jnp.full(len(x), params["mean"])
    return jnp.negative(jax.scipy.stats.multivariate_normal.logpdf(y, mean, covariance))


def theirs(tx, carry, data):
    params, state = carry

    def loss_fn(params):
        return _negative_log_likelihood(params, data)

    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, state = tx.update(grads, state)
    return (optax.apply_updates(params, updates), state), loss


def ours(tx, carry, data):
    params, state = carry

    def loss_fn(params):
        return _negative_log_likelihood(params, data)

    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, state = tx.update(grads, state, params, value=loss, value_fn=loss_fn)
    return (optax.apply_updates(params, updates), state), loss


def _data():
    random = np.random.default_rng(42)
    x = np.sort(np.append(random.uniform(0, 3.8, 28), random.uniform(5.5, 10, 18)))
    error = random.uniform(0.08, 0.22, len(x))
    trend = 0.2 * (x - 5) + np.sin(3 * x + 0.1 * (x - 5) ** 2)
    y = trend + error * random.normal(size=len(x))
    return tuple(jnp.asarray(values, jnp.float32) for values in (x, y, error))


def program() -> Program:
    data = _data()
    return Program(
        project="tinygp",
        url="https://github.com/dfm/tinygp/blob/main/docs/tutorials/modeling.ipynb",
        setting="sgd(3e-3)",
        optimizer=lambda steps: optax.sgd(3e-3),
        published_steps=1_001,
        steps=1_001,
        quick=10,
        start=begin(lambda key: {name: jnp.zeros(()) for name in NAMES}),
        batch=lambda key: data,
        theirs=theirs,
        ours=ours,
        judge=lambda params, carry: _negative_log_likelihood(params, data),
        judged="negative log likelihood, nats",
    )
