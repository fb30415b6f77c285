"""deap: eaSimple, `toolbox.register("map", futures.map)`."""

import random

import hooks
from deap import algorithms, base, creator, tools

creator.create("Max", base.Fitness, weights=(1.0,))
creator.create("Bits", list, fitness=creator.Max)


def ones(bits):
    hooks.mark()
    return (float(sum(bits)),)


def main():
    random.seed(5)
    box = base.Toolbox()
    box.register("map", hooks.mapper())
    box.register("bit", random.randint, 0, 1)
    box.register("individual", tools.initRepeat, creator.Bits, box.bit, 20)
    box.register("evaluate", ones)
    box.register("mate", tools.cxTwoPoint)
    box.register("mutate", tools.mutFlipBit, indpb=0.05)
    box.register("select", tools.selTournament, tournsize=3)
    crowd, book = algorithms.eaSimple(
        [box.individual() for _ in range(16)], box, 0.5, 0.2, 6, verbose=False
    )
    print(crowd, book.select("nevals"), random.random())


if __name__ == "__main__":
    main()
