# Equinox: a model of one example, GroupNorm, and a dropout key per example.
import equinox as eqx
import jax
import optax
from mekax.curvature import per_example
from mekax.optimizers import adameka, metrics
from sklearn.datasets import load_digits

images, labels = map(jax.numpy.asarray, load_digits(return_X_y=True))
tx = adameka()  # no learning rate


@eqx.filter_jit
def train_step(model, state, x, y, key):
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss_of_one(params, example):  # read an eqx.nn.State here, and renew it outside
        x, y, key = example
        logits = eqx.combine(params, static)(x / 16, key=key)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y)

    # Keys are part of the batch: every evaluation sees the same dropout masks.
    value_fn = per_example(loss_of_one, (x, y, jax.random.split(key, len(x))))
    value, grads = jax.value_and_grad(lambda p: value_fn(p).mean())(params)
    updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=value_fn)
    return eqx.apply_updates(model, updates), state, {"loss": value, **metrics(state)}


def train(steps=300):  # yields what to log: floats by name
    keys = jax.random.split(jax.random.key(0), steps + 2)
    layers = [eqx.nn.Linear(64, 64, key=keys[0]), eqx.nn.GroupNorm(8, 64)]
    layers += [eqx.nn.Lambda(jax.nn.relu), eqx.nn.Dropout(0.1), eqx.nn.Linear(64, 10, key=keys[1])]
    model = eqx.nn.Sequential(layers)
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))
    for key in keys[2:]:
        rows = jax.random.choice(key, len(labels), (64,))
        model, state, log = train_step(model, state, images[rows], labels[rows], key)
        yield jax.tree.map(float, log)
