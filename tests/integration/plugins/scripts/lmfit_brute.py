"""lmfit: `Minimizer(...).brute(workers=futures.map)`."""

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
    parameters.add("a", 1.9, min=1, max=3, brute_step=0.25)
    parameters.add("b", 0.7, min=0.2, max=1.8, brute_step=0.2)
    done = lmfit.Minimizer(residuals, parameters).brute(workers=hooks.mapper(), keep=3)
    print({name: round(value, 9) for name, value in done.params.valuesdict().items()})
    print([candidate.score for candidate in done.candidates])


if __name__ == "__main__":
    main()
