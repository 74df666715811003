"""NaN in the loss, the gradient and the curvature, also inside `optax.apply_if_finite`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from mekax.optimizers import adameka, metrics

PATIENCE = 2
PARAMS = {"w": jnp.array([2.0, -1.0, 0.5]), "none": None}
BATCH = {
    "x": jnp.linspace(0.5, 1.5, 12).reshape(4, 3),
    "value": jnp.zeros(4),
    "curvature": jnp.zeros(4),
}
NAN_VALUE = BATCH | {"value": jnp.array([0.0, jnp.nan, 0.0, 0.0])}
NAN_CURVATURE = BATCH | {"curvature": jnp.array([0.0, jnp.nan, 0.0, 0.0])}
INFINITE_CURVATURE = BATCH | {"curvature": jnp.array([0.0, jnp.inf, 0.0, 0.0])}


@jax.custom_jvp
def flat(w, curvature):
    """0, with a slope of 0 and a second derivative of any value."""
    return jnp.zeros_like(w)


@jax.custom_jvp
def slope(w, curvature):
    return jnp.zeros_like(w)


@flat.defjvp
def _(primals, tangents):
    return flat(*primals), slope(*primals) * tangents[0]


@slope.defjvp
def _(primals, tangents):
    return slope(*primals), primals[1] * tangents[0]


def loss_fn(params, example):
    """A quadratic whose value or curvature, and nothing else, can be made not finite."""
    bent = jnp.sum(flat(params["w"], example["curvature"]))
    return jnp.sum(jnp.square(example["x"] * params["w"])) + example["value"] + bent


def finite(tree):
    return all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(tree))


def refusals(state):
    """Steps refused because something was not finite, summed over all who count them."""
    return sum(int(count) for _, count in optax.tree.get_all_with_path(state, "skipped"))


def test_the_traps_are_what_they_say():
    for batch, bad in ((BATCH, None), (NAN_VALUE, 0), (NAN_CURVATURE, 2), (INFINITE_CURVATURE, 2)):

        def mean(p, batch=batch):
            return jax.vmap(loss_fn, (None, 0))(p, batch).mean()

        gradient, product = jax.jvp(jax.grad(mean), (PARAMS,), (PARAMS,))
        assert [finite(x) for x in (mean(PARAMS), gradient, product)] == [
            i != bad for i in range(3)
        ]


def test_nothing_poisons_the_state(transformation):
    """Bad batches of every kind, within and beyond the patience of `apply_if_finite`."""
    tx = optax.apply_if_finite(transformation.plain(), PATIENCE)

    @jax.jit
    def advance(params, state, batch, noise):
        return transformation.step(tx, params, state, batch, loss_fn, noise)

    def repeat(carry, times, batch=BATCH, noise=0.0, refused=0):
        before = refusals(carry[1])
        for _ in range(times):
            carry = advance(*carry, batch, noise)
            assert finite(carry)
        # In a chain each transformation counts what it refuses itself.
        assert refused <= refusals(carry[1]) - before <= refused * len(carry[1].inner_state)
        return carry

    # Already the first batches may be bad.
    start = repeat((PARAMS, tx.init(PARAMS)), PATIENCE, noise=jnp.nan)
    assert int(start[1].total_notfinite) == PATIENCE
    start = repeat(start, 1, NAN_VALUE, refused=1)

    # Past the fixed phase of a warm start, which follows gradients wherever they lead.
    good = repeat(start, 4)

    # Not the gradient: the wrapper does not notice, the transformation refuses by itself.
    bad = repeat(good, 2, NAN_VALUE, refused=2)
    assert all(step_size == 0 for _, step_size in optax.tree.get_all_with_path(bad, "step_size"))
    bad = repeat(bad, 2, NAN_CURVATURE, refused=2)
    bad = repeat(bad, 1, INFINITE_CURVATURE, refused=1)
    assert int(bad[1].total_notfinite) == PATIENCE

    # The gradient: rejected by the wrapper, then passed on when it gives up.
    rejected = repeat(bad, PATIENCE, noise=jnp.nan)
    assert int(rejected[1].total_notfinite) == 2 * PATIENCE
    jax.tree.map(
        np.testing.assert_array_equal, (rejected[0], rejected[1].inner_state), (bad[0], bad[1][3])
    )
    bad = rejected
    # Moments of Optax's own would keep a NaN for good.
    if not isinstance(bad[1].inner_state[0], optax.ScaleByAdamState):
        bad = repeat(bad, 2, noise=jnp.nan, refused=2)
        bad = repeat(bad, 1, noise=jnp.inf, refused=1)

    # And all is well again.
    size = float(jnp.linalg.norm(good[0]["w"]))
    recovered = repeat(bad, 60)
    assert float(jnp.linalg.norm(recovered[0]["w"])) < max(0.5 * size, 1e-3)


def test_an_unbounded_loss_does_not_send_narrow_numbers_to_infinity():
    tx, params = adameka(), jnp.full(3, 4e4, jnp.float16)  # which ends at 65,504
    state = tx.init(params)

    def value_fn(w):
        return -jnp.sum(1e-9 * w.astype(jnp.float32) ** 2) + jnp.zeros(4)

    @jax.jit
    def step(params, state):
        grads = 1e4 * jax.grad(lambda w: value_fn(w).mean())(params)
        updates, state = tx.update(grads, state, params, value_fn=value_fn)
        return optax.apply_updates(params, updates), state

    for _ in range(15):
        params, state = step(params, state)
    assert jnp.isfinite(params).all()
    assert metrics(state)["skipped"] > 0
