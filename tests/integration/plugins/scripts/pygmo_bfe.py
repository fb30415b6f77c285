"""pygmo: the batch evaluator of `resilient_scoop.contrib.pygmo`."""

import hooks
import pygmo


class Sphere:
    def fitness(self, x):
        hooks.mark()
        return [float((x**2).sum())]

    def get_bounds(self):
        return [-3.0] * 3, [3.0] * 3


def main():
    if hooks.BUILTIN:
        evaluator = pygmo.bfe(Serial())
    else:
        from resilient_scoop.contrib.pygmo import BatchEvaluator

        evaluator = pygmo.bfe(BatchEvaluator())
    uda = pygmo.pso_gen(gen=6, seed=2)
    uda.set_bfe(evaluator)
    crowd = pygmo.population(pygmo.problem(Sphere()), size=12, b=evaluator, seed=5)
    crowd = pygmo.algorithm(uda).evolve(crowd)
    print(crowd.champion_x.tolist(), crowd.champion_f.tolist())


class Serial:
    def __call__(self, problem, vectors):
        width = problem.get_nx()
        rows = vectors.reshape(-1, width)
        return [value for row in rows for value in problem.fitness(row)]


if __name__ == "__main__":
    main()
