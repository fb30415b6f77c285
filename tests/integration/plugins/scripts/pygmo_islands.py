"""pygmo: islands of `resilient_scoop.contrib.pygmo`, evolved by threads of pygmo."""

import hooks
import pygmo


class Sphere:
    def fitness(self, x):
        hooks.mark()
        return [float((x**2).sum())]

    def get_bounds(self):
        return [-3.0] * 3, [3.0] * 3


class Serial:
    def run_evolve(self, algorithm, crowd):
        return algorithm, algorithm.evolve(crowd)


def main():
    if hooks.BUILTIN:
        island = Serial()
    else:
        from resilient_scoop.contrib.pygmo import Island

        island = Island()
    problem = pygmo.problem(Sphere())
    islands = pygmo.archipelago(t=pygmo.unconnected())
    for seed in range(4):
        crowd = pygmo.population(problem, size=6, seed=seed)
        islands.push_back(udi=island, algo=pygmo.algorithm(pygmo.de(gen=1, seed=seed)), pop=crowd)
    islands.evolve(3)
    islands.wait_check()
    print([each.tolist() for each in islands.get_champions_f()])


if __name__ == "__main__":
    main()
