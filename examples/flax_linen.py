# Flax linen: a plain loop, GroupNorm, dropout, and a mutable collection.
import flax.linen as nn
import jax
import optax
from mekax.optimizers import adameka, metrics
from sklearn.datasets import load_digits

images, labels = map(jax.numpy.asarray, load_digits(return_X_y=True))
tx = adameka()  # no learning rate


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        center = self.variable("statistics", "center", x.mean, 0)  # carried, not differentiated
        h = nn.GroupNorm(num_groups=8)(nn.Dense(64)((x - center.value) / 16))
        center.value = 0.99 * center.value + 0.01 * x.mean(0)  # used from the next step on
        return nn.Dense(10)(nn.Dropout(0.1, deterministic=False)(nn.relu(h)))


@jax.jit
def train_step(params, state, old, x, y, key):
    def losses(p):  # one per example, shape (batch,); the key is fixed, so is the dropout mask
        logits, new = Net().apply({"params": p, **old}, x, rngs={"dropout": key}, mutable=[*old])
        return optax.softmax_cross_entropy_with_integer_labels(logits, y), new

    def mean_loss(p):
        values, new = losses(p)
        return values.mean(), new

    (value, new), grads = jax.value_and_grad(mean_loss, has_aux=True)(params)
    value_fn = lambda p: losses(p)[0]  # noqa: E731
    updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=value_fn)
    return optax.apply_updates(params, updates), state, new, {"loss": value, **metrics(state)}


def train(steps=300):  # yields what to log: floats by name
    old = Net().init(jax.random.key(0), images)
    params = old.pop("params")
    state = tx.init(params)
    for key in jax.random.split(jax.random.key(1), steps):
        rows = jax.random.choice(key, len(labels), (64,))
        params, state, old, log = train_step(params, state, old, images[rows], labels[rows], key)
        yield jax.tree.map(float, log)
