# Flax linen: TrainState, GroupNorm, dropout, and a mutable collection.
import flax.linen as nn
import jax
import optax
from flax.training.train_state import TrainState
from mekax.optimizers import meka, metrics
from sklearn.datasets import load_digits

images, labels = map(jax.numpy.asarray, load_digits(return_X_y=True))


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        center = self.variable("statistics", "center", x.mean, 0)  # carried, not differentiated
        h = nn.GroupNorm(num_groups=8)(nn.Dense(64)((x - center.value) / 16))
        center.value = 0.99 * center.value + 0.01 * x.mean(0)  # counts from the next step on
        return nn.Dense(10)(nn.Dropout(0.1, deterministic=False)(nn.relu(h)))


@jax.jit
def train_step(s, old, x, y, key):
    def losses(p):  # one per example, shape (batch,); the key is fixed, so is the dropout mask
        logits, new = s.apply_fn({"params": p, **old}, x, rngs={"dropout": key}, mutable=[*old])
        return optax.softmax_cross_entropy_with_integer_labels(logits, y), new

    grads, new = jax.grad(lambda p: (losses(p)[0].mean(), losses(p)[1]), has_aux=True)(s.params)
    # TrainState.apply_gradients passes no extra arguments on, so do what it does:
    updates, opt = s.tx.update(grads, s.opt_state, s.params, value_fn=lambda p: losses(p)[0])
    params = optax.apply_updates(s.params, updates)
    return s.replace(step=s.step + 1, params=params, opt_state=opt), new


def train(steps=300):  # yields what to log: floats by name
    old = Net().init(jax.random.key(0), images)
    state = TrainState.create(apply_fn=Net().apply, params=old.pop("params"), tx=meka())
    for key in jax.random.split(jax.random.key(1), steps):
        rows = jax.random.choice(key, len(labels), (64,))
        state, old = train_step(state, old, images[rows], labels[rows], key)
        yield jax.tree.map(float, metrics(state.opt_state))
