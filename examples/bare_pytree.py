# A plain JAX loop: parameters in a dictionary, dropout.
import jax
import jax.numpy as jnp
import optax
from mekax.optimizers import adameka, metrics
from sklearn.datasets import load_digits

images, labels = (jnp.asarray(array) for array in load_digits(return_X_y=True))
tx = adameka()  # no learning rate


def losses(params, x, y, key):  # one per example, shape (batch,)
    hidden = jax.nn.relu(x / 16 @ params["w1"] + params["b1"])
    hidden *= jax.random.bernoulli(key, 0.9, hidden.shape) / 0.9  # dropout
    logits = hidden @ params["w2"] + params["b2"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y)


@jax.jit
def train_step(params, state, key):
    batch_key, dropout_key = jax.random.split(key)
    rows = jax.random.choice(batch_key, len(labels), (64,))

    def value_fn(p):  # batch and key are fixed: every evaluation sees one dropout mask
        return losses(p, images[rows], labels[rows], dropout_key)

    value, grads = jax.value_and_grad(lambda p: value_fn(p).mean())(params)
    updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=value_fn)
    return optax.apply_updates(params, updates), state, {"loss": value, **metrics(state)}


def train(steps=300):  # yields what to log: floats by name
    w = [jax.random.normal(jax.random.key(n), (64, n)) / 8 for n in (64, 10)]
    params = {"w1": w[0], "b1": jnp.zeros(64), "w2": w[1], "b2": jnp.zeros(10)}
    state = tx.init(params)
    for key in jax.random.split(jax.random.key(0), steps):
        params, state, log = train_step(params, state, key)
        yield jax.tree.map(float, log)
