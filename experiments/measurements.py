"""Tables of measurements to learn the density of."""

import numpy as np

from .datasets import stratified_split


def cells() -> tuple[np.ndarray, np.ndarray]:
    """Ten measurements each of the nuclei of cells from 569 breast tumors: 80 % and 20 % of them.

    Float32 of shape (n, 10). Logarithms are taken, and brought to mean 0 and covariance I over the
    first part, as some measurements all but determine others (radius, perimeter, area). So what
    there is to learn beyond a Gaussian is below its 14.19 nats. The data come with scikit-learn.

    Source: W. N. Street, W. H. Wolberg and O. L. Mangasarian (1993).
    """
    from sklearn.datasets import load_breast_cancer

    values, label = load_breast_cancer(return_X_y=True)
    values = np.log(np.asarray(values)[:, :10] + 0.01)  # of concavity some are 0
    train, test = stratified_split(np.asarray(label), 0.2, np.random.default_rng(2020))
    mean, factor = values[train].mean(axis=0), np.linalg.cholesky(np.cov(values[train].T))
    white = np.linalg.solve(factor, (values - mean).T).T.astype(np.float32)
    return white[train], white[test]
