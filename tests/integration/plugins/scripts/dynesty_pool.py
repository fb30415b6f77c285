"""dynesty: `NestedSampler(pool=pool)`, which asks the pool for its size."""

import dynesty
import hooks
import numpy as np


def log_likelihood(x):
    hooks.mark()
    return -0.5 * float(np.sum(x**2))


def prior(u):
    return 10.0 * u - 5.0


def main():
    with hooks.pool(2) as pool:
        sampler = dynesty.NestedSampler(
            log_likelihood, prior, 2, nlive=20, rstate=np.random.default_rng(4), pool=pool,
            use_pool={"prior_transform": False}, sample="unif", bound="single",
        )  # fmt: skip
        sampler.run_nested(maxiter=30, print_progress=False, add_live=False)
    print(sampler.results.logz[-1], sampler.results.samples[-1].tolist())


if __name__ == "__main__":
    main()
