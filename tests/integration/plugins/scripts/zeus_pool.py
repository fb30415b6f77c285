"""zeus-mcmc: `EnsembleSampler(pool=pool)`."""

import random

import hooks
import numpy as np
import zeus


def log_density(x):
    hooks.mark()
    return -0.5 * float(np.sum(x**2))


def main():
    np.random.seed(3)
    random.seed(3)
    with hooks.pool() as pool:
        sampler = zeus.EnsembleSampler(6, 2, log_density, pool=pool, verbose=False)
        sampler.run_mcmc(np.random.randn(6, 2), 6, progress=False)
    print(sampler.get_chain()[-1].tolist())


if __name__ == "__main__":
    main()
