"""deap: genetic programming, trees of a primitive set, `functools.partial` in the toolbox."""

import operator
import random

import hooks
from deap import algorithms, base, creator, gp, tools

creator.create("Least", base.Fitness, weights=(-1.0,))
creator.create("Tree", gp.PrimitiveTree, fitness=creator.Least)
primitives = gp.PrimitiveSet("main", 1)
primitives.addPrimitive(operator.add, 2)
primitives.addPrimitive(operator.mul, 2)
primitives.addPrimitive(operator.neg, 1)
primitives.addTerminal(1.0)


def loss(tree, points):
    hooks.mark()
    function = gp.compile(tree, primitives)
    return (sum((function(x) - x**3 - x) ** 2 for x in points) / len(points),)


def main():
    random.seed(7)
    box = base.Toolbox()
    box.register("map", hooks.mapper())
    box.register("expression", gp.genHalfAndHalf, pset=primitives, min_=1, max_=2)
    box.register("individual", tools.initIterate, creator.Tree, box.expression)
    box.register("evaluate", loss, points=[x / 10 for x in range(-10, 10)])
    box.register("select", tools.selTournament, tournsize=3)
    box.register("mate", gp.cxOnePoint)
    box.register("grow", gp.genFull, min_=0, max_=2)
    box.register("mutate", gp.mutUniform, expr=box.grow, pset=primitives)
    crowd = [box.individual() for _ in range(16)]
    best = tools.HallOfFame(1)
    algorithms.eaSimple(crowd, box, 0.5, 0.1, 5, halloffame=best, verbose=False)
    print(best[0], best[0].fitness.values, random.random())


if __name__ == "__main__":
    main()
