"""pyabc: `ConcurrentFutureSampler(executor)`; how many particles are tried depends on time."""

import logging
import tempfile
import warnings

import hooks
import numpy as np
import pyabc


def model(parameters):
    hooks.mark()
    return {"y": parameters["mu"] + 0.1}


def distance(x, x0):
    return abs(x["y"] - x0["y"])


def main():
    warnings.simplefilter("ignore")
    logging.disable()
    np.random.seed(1)
    with hooks.executor() as executor, tempfile.TemporaryDirectory() as folder:
        sampler = pyabc.sampler.ConcurrentFutureSampler(executor, client_max_jobs=2)
        abc = pyabc.ABCSMC(
            model, pyabc.Distribution(mu=pyabc.RV("uniform", 0, 1)), distance,
            population_size=10, sampler=sampler,
        )  # fmt: skip
        abc.new(f"sqlite:///{folder}/abc.db", {"y": 0.5})
        history = abc.run(max_nr_populations=2)
        frame, _ = history.get_distribution()
    print(len(frame), bool(abs(frame["mu"].mean() - 0.4) < 0.3))


if __name__ == "__main__":
    main()
