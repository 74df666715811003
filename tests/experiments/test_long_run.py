import jax.numpy as jnp
import numpy as np
from mekax.experiments import long_run
from mekax.optimizers import adameka


def test_watches_every_part(monkeypatch):
    monkeypatch.setattr(long_run, "PARTS", 4)
    monkeypatch.setattr(long_run, "AT_ONCE", 5)
    seen = long_run.watch(adameka(), jnp.bfloat16, 60)
    assert seen["step"] == [15, 30, 45, 60]
    assert seen["num_adaptations"][-1] == 59  # the first step measured is none
    assert {len(values) for values in seen.values()} == {4}
    assert np.all(np.isfinite(list(seen.values())))
    assert seen["loss"][-1] < seen["loss"][0]
    assert "60 steps, 0 rejected, loss " in long_run.summary(seen)
