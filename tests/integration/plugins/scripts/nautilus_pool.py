"""nautilus-sampler: `Sampler(pool=pool)`."""

import warnings

import hooks
import nautilus
import numpy as np


def log_likelihood(x):
    hooks.mark()
    return -0.5 * float(np.sum((x - 0.5) ** 2) / 0.01)


def prior(u):
    return u


def main():
    warnings.simplefilter("ignore")
    with hooks.pool(2) as pool:
        sampler = nautilus.Sampler(
            prior, log_likelihood, 2, n_live=60, n_networks=0, n_batch=20, seed=2, pool=(pool, None)
        )
        sampler.run(f_live=0.4, n_eff=0, n_like_max=240, verbose=False)
    print(sampler.log_z, sampler.n_like)


if __name__ == "__main__":
    main()
