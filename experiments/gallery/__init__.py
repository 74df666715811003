"""Public training programs, rebuilt as small loops, with their optimizer and with ours.

Adding one is adding a file and a row. The file has `program() -> Program` and, side by side, the
training step in the form of the public program and with `adameka`; importing this module imports
none of them.
"""

from typing import NamedTuple

__all__ = ["ENTRIES", "Entry"]


class Entry(NamedTuple):
    """What is known of a program before anything heavy is imported.

    Attributes:
      description: one line.
      module: file of this package.
      needs: packages without which it is left out.
    """

    description: str
    module: str
    needs: tuple[str, ...] = ()


ENTRIES = {
    "transformer": Entry("Optax: a transformer of characters", "transformer", ("flax",)),
    "vae": Entry("Flax NNX: a variational autoencoder", "vae", ("flax",)),
    "neural-ode": Entry("Diffrax: a neural ODE", "neural_ode", ("diffrax", "equinox")),
    "neural-cde": Entry("Diffrax: a neural CDE", "neural_cde", ("diffrax", "equinox")),
    "gaussian-process": Entry("tinygp: hyperparameters of a Gaussian process", "gaussian_process"),
    "graph-network": Entry("Jraph: a graph network on the karate club", "graph_network"),
    "pinn": Entry("DeepXDE: a physics-informed network for Burgers' equation", "pinn"),
    "svi": Entry("NumPyro: variational inference with a flow", "svi", ("numpyro",)),
    "rnn": Entry("Equinox: a recurrent network", "rnn", ("equinox",)),
    "ppo": Entry("PureJaxRL: proximal policy optimization on the cart-pole", "ppo"),
    "gan": Entry("Haiku: a GAN with two optimizers", "gan"),
    "lora": Entry("Lorax: low-rank fine-tuning of a trained network", "lora"),
    "batch-norm": Entry("Flax: a network with BatchNorm", "batch_norm", ("flax",)),
}
