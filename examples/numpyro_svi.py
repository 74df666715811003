# NumPyro: an optimizer wrapper for SVI that hands the ELBO on as value_fn.
import jax
import numpyro
import numpyro.distributions as dist
import optax
from mekax.optimizers import adameka, metrics
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.optim import _NumPyroOptim
from sklearn.datasets import load_digits

images, labels = map(jax.numpy.asarray, load_digits(return_X_y=True))


class Mekax(_NumPyroOptim):
    def __init__(self, tx):
        self.tx = tx
        super().__init__(lambda: (lambda p: (p, tx.init(p)), None, lambda state: state[0]))

    def eval_and_update(self, fn, state, forward_mode_differentiation=False):
        count, (params, opt_state) = state
        (value, aux), grads = jax.value_and_grad(fn, has_aux=True)(params)
        updates, opt_state = self.tx.update(
            grads, opt_state, params, value=value, grad=grads, value_fn=lambda p: fn(p)[0]
        )
        return (value, aux), (count + 1, (optax.apply_updates(params, updates), opt_state))

    eval_and_stable_update = eval_and_update  # a batch that is not finite is skipped anyway


def model(x, y):
    w = numpyro.sample("w", dist.Normal(0, 1).expand([64, 10]).to_event(2))
    with numpyro.plate("digits", len(labels), subsample_size=len(y)):
        numpyro.sample("y", dist.Categorical(logits=x / 16 @ w), obs=y)


def train(steps=300):  # yields what to log: floats by name
    svi = SVI(model, AutoNormal(model), Mekax(adameka()), Trace_ELBO(num_particles=8))
    state, update = svi.init(jax.random.key(0), images[:64], labels[:64]), jax.jit(svi.update)
    for key in jax.random.split(jax.random.key(1), steps):
        rows = jax.random.choice(key, len(labels), (64,))
        state, loss = update(state, images[rows], labels[rows])
        yield {"loss": float(loss), **jax.tree.map(float, metrics(state.optim_state))}
