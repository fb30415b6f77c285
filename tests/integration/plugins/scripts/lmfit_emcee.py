"""lmfit: `Minimizer(...).emcee(workers=pool)`."""

import hooks
import lmfit
import numpy as np

T = np.linspace(0, 3, 15)
DATA = 2.0 * np.exp(-0.8 * T)


def residuals(parameters):
    hooks.mark()
    return (parameters["a"].value * np.exp(-parameters["b"].value * T) - DATA) / 0.05


def main():
    parameters = lmfit.Parameters()
    parameters.add("a", 1.9, min=0, max=4)
    parameters.add("b", 0.7, min=0, max=2)
    with hooks.pool() as pool:
        done = lmfit.Minimizer(residuals, parameters).emcee(
            nwalkers=8, steps=8, burn=2, thin=1, seed=5, workers=pool, progress=False
        )
    print(done.chain[-1].tolist())


if __name__ == "__main__":
    main()
