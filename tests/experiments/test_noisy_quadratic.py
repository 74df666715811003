import json

import numpy as np
from mekax.experiments.reproductions import claims, noisy_quadratic


def test_quick_run_draws_and_judges(tmp_path):
    result = noisy_quadratic.run(tmp_path, quick=True, seeds=3)
    assert [claim.holds for claim in result.claims] == [True] * 6
    assert (tmp_path / "noisy-quadratic.png").stat().st_size > 10_000
    path = claims.write("noisy-quadratic", result, tmp_path)
    data = json.loads(path.read_text())["data"]
    for name in (noisy_quadratic.SGD, noisy_quadratic.FILTER):
        assert len(data["step"]) == len(data[name]["median"])


def test_claims_can_fail():
    times = np.arange(1, 101)
    flat = {name: np.ones((3, 100)) for name in noisy_quadratic._methods()}
    flat[noisy_quadratic.EXACT] /= 3
    flat[noisy_quadratic.PUBLISHED] *= 2
    flat[noisy_quadratic.OURS] *= 2
    assert [claim.holds for claim in noisy_quadratic._judge(times, flat)] == [False] * 6
