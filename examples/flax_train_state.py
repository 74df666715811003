# Flax TrainState whose apply_gradients hands value_fn on to the optimizer.
import flax.linen as nn
import jax
import optax
from flax.training import train_state
from mekax.optimizers import adameka, metrics
from sklearn.datasets import load_digits

images, labels = map(jax.numpy.asarray, load_digits(return_X_y=True))


class TrainState(train_state.TrainState):
    def apply_gradients(self, *, grads, value_fn, value=None, **kwargs):
        updates, opt_state = self.tx.update(
            grads, self.opt_state, self.params, value=value, grad=grads, value_fn=value_fn
        )
        params = optax.apply_updates(self.params, updates)
        return self.replace(step=self.step + 1, params=params, opt_state=opt_state, **kwargs)


@jax.jit
def train_step(state, x, y):
    def value_fn(params):  # one loss per example, shape (batch,)
        logits = state.apply_fn({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y)

    value, grads = jax.value_and_grad(lambda p: value_fn(p).mean())(state.params)
    state = state.apply_gradients(grads=grads, value=value, value_fn=value_fn)
    return state, {"loss": value, **metrics(state.opt_state)}


def train(steps=300):  # yields what to log: floats by name
    net = nn.Sequential([lambda x: x / 16, nn.Dense(64), nn.relu, nn.Dense(10)])
    params = net.init(jax.random.key(0), images)["params"]
    state = TrainState.create(apply_fn=net.apply, params=params, tx=adameka())
    for key in jax.random.split(jax.random.key(1), steps):
        rows = jax.random.choice(key, len(labels), (64,))
        state, log = train_step(state, images[rows], labels[rows])
        yield jax.tree.map(float, log)
