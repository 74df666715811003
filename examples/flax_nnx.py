# Flax NNX: nnx.Optimizer, GroupNorm, dropout, and a variable that is not trained.
import jax
import optax
from flax import nnx
from mekax.optimizers import adameka, metrics, nnx_value_fn
from sklearn.datasets import load_digits

images, labels = map(jax.numpy.asarray, load_digits(return_X_y=True))


class Net(nnx.Module):
    def __init__(self, rngs):
        self.center = nnx.BatchStat(images[:100].mean(0))  # carried, not differentiated
        self.hidden, self.out = nnx.Linear(64, 64, rngs=rngs), nnx.Linear(64, 10, rngs=rngs)
        self.norm, self.dropout = nnx.GroupNorm(64, 8, rngs=rngs), nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x):
        h = self.norm(self.hidden((x - self.center[...]) / 16))
        self.center[...] = 0.99 * self.center[...] + 0.01 * x.mean(0)
        return self.out(self.dropout(jax.nn.relu(h)))


def losses(model, x, y):  # one per example, shape (batch,)
    return optax.softmax_cross_entropy_with_integer_labels(model(x), y)


@nnx.jit
def train_step(model, optimizer, x, y):
    value_fn = nnx_value_fn(model, losses, x, y)  # first: gradient and value_fn share one mask
    value, grads = nnx.value_and_grad(lambda model: losses(model, x, y).mean())(model)
    optimizer.update(model, grads, value=value, grad=grads, value_fn=value_fn)
    return {"loss": value, **metrics(nnx.as_pure(optimizer.opt_state))}


def train(steps=300):  # yields what to log: floats by name
    model = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, adameka(), wrt=nnx.Param)
    for key in jax.random.split(jax.random.key(1), steps):
        rows = jax.random.choice(key, len(labels), (64,))
        yield jax.tree.map(float, train_step(model, optimizer, images[rows], labels[rows]))
