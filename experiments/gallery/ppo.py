"""Proximal policy optimization on the cart-pole.

Modeled on PureJaxRL's `ppo.py`, at its size: adam(2.5e-4, eps=1e-5) with linear decay behind
clip_by_global_norm(0.5), 4 carts, 976 times 128 moves, each used in 4 epochs of 4 minibatches, a
discount of 0.99, λ = 0.95, networks with 2 tanh layers of 64 for policy and value. Here: 150 times;
`adameka` clips nothing. Cart and pole: Barto, Sutton & Anderson (1983), constants of Gymnasium's
`CartPole-v1`; an episode ends after 500 moves.
"""

import jax
import jax.numpy as jnp
import optax

from .program import Program

CARTS, MOVES, EPOCHS, MINIBATCHES, LONGEST = 4, 128, 4, 4, 500
DISCOUNT, LAMBDA, CLIP, ENTROPY = 0.99, 0.95, 0.2, 0.01


def _physics(cart, action):
    """The next state, (4,), of one cart that is pushed to the left (0) or to the right (1)."""
    _, speed, angle, turn = cart
    force, cos, sin = 20.0 * action - 10.0, jnp.cos(angle), jnp.sin(angle)
    push = (force + 0.05 * turn**2 * sin) / 1.1
    turning = (9.8 * sin - cos * push) / (0.5 * (4 / 3 - 0.1 * cos**2 / 1.1))
    pushing = push - 0.05 * turning * cos / 1.1
    return cart + 0.02 * jnp.stack([speed, pushing, turn, turning])


def _move(env, action, key):
    """The next state and age of all carts, those that fell or grew old begun anew; and whether."""
    carts, ages = env
    carts, ages = jax.vmap(_physics)(carts, action), ages + 1
    done = (jnp.abs(carts[:, 0]) > 2.4) | (jnp.abs(carts[:, 2]) > jnp.pi / 15) | (ages >= LONGEST)
    fresh = jax.random.uniform(key, carts.shape, minval=-0.05, maxval=0.05)
    return (jnp.where(done[:, None], fresh, carts), jnp.where(done, 0, ages)), done


def _net(layers, x):
    for weight, bias in layers[:-1]:
        x = jnp.tanh(x @ weight + bias)
    return x @ layers[-1][0] + layers[-1][1]


def _collect(params, env, key):
    """Let the policy move: the carts afterwards, and what was seen, shapes (MOVES, CARTS, …)."""

    def move(env, key):
        choose, begin = jax.random.split(key)
        log_probs = jax.nn.log_softmax(_net(params["policy"], env[0]))
        action = jax.random.categorical(choose, log_probs)
        value = _net(params["value"], env[0])[:, 0]
        after, done = _move(env, action, begin)
        chosen = jnp.take_along_axis(log_probs, action[:, None], axis=1)[:, 0]
        seen = {"x": env[0], "action": action, "log_prob": chosen, "value": value, "done": done}
        return after, seen

    return jax.lax.scan(move, env, jax.random.split(key, MOVES))


def _advantages(seen, last_value):
    """Generalized advantage estimates, for a reward of 1 at every move; shape (MOVES, CARTS)."""

    def back(carry, seen):
        advantage, next_value = carry
        goes_on = 1.0 - seen["done"]
        error = 1.0 + DISCOUNT * next_value * goes_on - seen["value"]
        advantage = error + DISCOUNT * LAMBDA * goes_on * advantage
        return (advantage, seen["value"]), advantage

    return jax.lax.scan(back, (0 * last_value, last_value), seen, reverse=True)[1]


def _experience(params, env, key):
    """The carts afterwards, and minibatches in the order in which they are used."""
    moving, *shuffling = jax.random.split(key, 1 + EPOCHS)
    env, seen = _collect(params, env, moving)
    seen["advantage"] = _advantages(seen, _net(params["value"], env[0])[:, 0])
    flat = jax.tree.map(lambda leaf: leaf.reshape(MOVES * CARTS, *leaf.shape[2:]), seen)
    orders = [jax.random.permutation(key, MOVES * CARTS) for key in shuffling]
    rows = jnp.concatenate(orders).reshape(EPOCHS * MINIBATCHES, -1)
    return env, jax.tree.map(lambda leaf: leaf[rows], flat)


def _ppo_losses(params, seen):
    """Clipped policy loss, clipped value loss and entropy of each move, shape (n,)."""
    log_probs = jax.nn.log_softmax(_net(params["policy"], seen["x"]))
    chosen = jnp.take_along_axis(log_probs, seen["action"][:, None], axis=1)[:, 0]
    ratio, gain = jnp.exp(chosen - seen["log_prob"]), seen["advantage"]
    gain = (gain - gain.mean()) / (gain.std() + 1e-8)
    policy = -jnp.minimum(ratio * gain, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * gain)
    target, value = seen["advantage"] + seen["value"], _net(params["value"], seen["x"])[:, 0]
    near = seen["value"] + jnp.clip(value - seen["value"], -CLIP, CLIP)
    error = 0.5 * jnp.maximum((value - target) ** 2, (near - target) ** 2)
    entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=1)
    return policy + 0.5 * error - ENTROPY * entropy


def theirs(tx, carry, key):
    params, state, env = carry
    env, minibatches = _experience(params, env, key)

    def update(carry, minibatch):
        params, state = carry

        def loss_fn(params):
            return _ppo_losses(params, minibatch).mean()

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), loss

    (params, state), loss = jax.lax.scan(update, (params, state), minibatches)
    return (params, state, env), loss.mean()


def ours(tx, carry, key):
    params, state, env = carry
    env, minibatches = _experience(params, env, key)

    def update(carry, minibatch):
        params, state = carry

        def loss_fn(params):
            return _ppo_losses(params, minibatch)

        loss, grads = jax.value_and_grad(lambda p: loss_fn(p).mean())(params)
        updates, state = tx.update(grads, state, params, value=loss, value_fn=loss_fn)
        return (optax.apply_updates(params, updates), state), loss

    (params, state), loss = jax.lax.scan(update, (params, state), minibatches)
    return (params, state, env), loss.mean()


def _begin(key, carts):
    return jax.random.uniform(key, (carts, 4), minval=-0.05, maxval=0.05), jnp.zeros(carts)


def _start(tx, key):
    for_policy, for_value, for_env = jax.random.split(key, 3)
    params = {
        name: [
            (jax.nn.initializers.orthogonal(gain)(key, shape), jnp.zeros(shape[1]))
            for key, gain, shape in zip(
                jax.random.split(key, 3),
                (2**0.5, 2**0.5, last),
                ((4, 64), (64, 64), (64, outputs)),
                strict=True,
            )
        ]
        for name, key, last, outputs in (
            ("policy", for_policy, 0.01, 2),
            ("value", for_value, 1.0, 1),
        )
    }
    return params, tx.init(params), _begin(for_env, CARTS)


def _judge(params, carry):
    """Of 64 episodes, the share of their 500 moves that is lost as the pole falls."""

    def move(carry, key):
        env, standing = carry
        choose, begin = jax.random.split(key)
        action = jax.random.categorical(choose, _net(params["policy"], env[0]))
        env, done = _move(env, action, begin)
        return (env, standing & ~done), standing

    first = _begin(jax.random.key(0), 64), jnp.ones(64, bool)
    _, standing = jax.lax.scan(move, first, jax.random.split(jax.random.key(1), LONGEST))
    return jnp.mean(1.0 - standing)


def _decaying(steps):
    rate = optax.linear_schedule(2.5e-4, 0.0, steps * EPOCHS * MINIBATCHES)
    return optax.chain(optax.clip_by_global_norm(0.5), optax.adam(rate, eps=1e-5))


def program() -> Program:
    return Program(
        project="PureJaxRL",
        url="https://github.com/luchris429/purejaxrl/blob/main/purejaxrl/ppo.py",
        setting="clip(0.5), adam(2.5e-4), linear decay",
        optimizer=_decaying,
        published_steps=976,
        steps=150,
        quick=2,
        start=_start,
        batch=lambda key: key,
        theirs=theirs,
        ours=ours,
        judge=_judge,
        judged="share of 500 moves lost",
    )
