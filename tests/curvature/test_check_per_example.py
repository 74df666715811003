import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from mekax.curvature import check_per_example


class Net(nn.Module):
    norm: str

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(8)(x)
        if self.norm == "group":
            x = nn.GroupNorm(num_groups=2)(x)
        else:
            x = nn.BatchNorm(use_running_average=self.norm == "frozen")(x)
        return nn.Dense(1)(nn.relu(x))[:, 0] ** 2


@pytest.mark.parametrize("norm", ["group", "frozen", "batch"])
def test_batch_normalization_is_told_from_the_others(norm):
    x = jax.random.normal(jax.random.key(0), (7, 3))
    net = Net(norm)
    variables = net.init(jax.random.key(1), x)

    def losses(params, batch):
        return net.apply({**variables, "params": params}, batch, mutable=["batch_stats"])[0]

    if norm == "batch":
        with pytest.raises(ValueError, match="GroupNorm"):
            check_per_example(losses, variables["params"], x)
    else:
        check_per_example(losses, variables["params"], x)


def test_averaged_losses_are_named():
    with pytest.raises(ValueError, match="before they are averaged"):
        check_per_example(lambda w, x: jnp.mean(x * w), jnp.ones(()), jnp.ones(4))
    with pytest.raises(ValueError, match="at least two"):
        check_per_example(lambda w, x: x * w, jnp.ones(()), jnp.ones(1))


def test_losses_that_are_not_numbers_do_not_pass():
    with pytest.raises(ValueError, match="one example alone"):
        check_per_example(lambda w, x: x * jnp.nan, jnp.ones(()), jnp.ones(4))
