import json

import numpy as np
from mekax.experiments.reproductions import claims, noisy_quadratic


def test_quick_run_draws_and_judges(tmp_path):
    result = noisy_quadratic.run(tmp_path, quick=True, seeds=3)
    assert [claim.holds for claim in result.claims] == [True, True]
    assert (tmp_path / "noisy-quadratic.png").stat().st_size > 10_000
    path = claims.write("noisy-quadratic", result, tmp_path)
    data = json.loads(path.read_text())["data"]
    assert len(data["step"]) == len(data["SGD"]) == len(data["filtered gradient"])


def test_claims_can_fail():
    times = np.arange(1, 101)
    flat = {"filtered gradient": np.ones((3, 100)), "SGD": np.ones((3, 100))}
    assert [claim.holds for claim in noisy_quadratic._judge(times, flat)] == [False, False]
