"""pygad: `fitness_batch_size`, and `fitness_func` of `resilient_scoop.contrib.pygad`."""

import hooks
import numpy as np
import pygad


def fitness(solution):
    hooks.mark()
    return -float(np.sum((solution - np.arange(4)) ** 2))


def serial(ga, solutions, indices):
    return [fitness(each) for each in solutions]


def main():
    if hooks.BUILTIN:
        evaluate = serial
    else:
        from resilient_scoop.contrib.pygad import batch_fitness

        evaluate = batch_fitness(fitness)
    ga = pygad.GA(
        num_generations=6, num_parents_mating=4, sol_per_pop=12, num_genes=4, random_seed=8,
        fitness_func=evaluate, fitness_batch_size=12, suppress_warnings=True,
    )  # fmt: skip
    ga.run()
    solution, value, _ = ga.best_solution(ga.last_generation_fitness)
    print(solution.tolist(), value)


if __name__ == "__main__":
    main()
