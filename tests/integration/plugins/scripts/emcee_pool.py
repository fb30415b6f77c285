"""emcee: `EnsembleSampler(pool=pool)`."""

import emcee
import hooks
import numpy as np


def log_density(x, width):
    hooks.mark()
    return -0.5 * float(np.sum((x / width) ** 2))


def main():
    np.random.seed(3)
    with hooks.pool() as pool:
        sampler = emcee.EnsembleSampler(8, 2, log_density, args=[2.0], pool=pool)
        sampler.run_mcmc(np.random.randn(8, 2), 12)
    print(sampler.get_chain()[-1].tolist(), sampler.acceptance_fraction.tolist())


if __name__ == "__main__":
    main()
