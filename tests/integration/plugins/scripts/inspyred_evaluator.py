"""inspyred: the evaluator of `resilient_scoop.contrib.inspyred`."""

import random

import hooks
import inspyred


def loss(candidate):
    hooks.mark()
    return sum(x * x for x in candidate)


def generate(random, args):
    return [random.uniform(-3, 3) for _ in range(4)]


@inspyred.ec.evaluators.evaluator
def serial(candidate, args):
    return loss(candidate)


def main():
    if hooks.BUILTIN:
        evaluator = serial
    else:
        from resilient_scoop.contrib.inspyred import evaluator_of

        evaluator = evaluator_of(loss)
    algorithm = inspyred.ec.DEA(random.Random(4))
    algorithm.terminator = inspyred.ec.terminators.evaluation_termination
    crowd = algorithm.evolve(
        generate, evaluator, pop_size=12, maximize=False, max_evaluations=96,
        bounder=inspyred.ec.Bounder(-3, 3),
    )  # fmt: skip
    print([each.candidate for each in sorted(crowd)[-3:]])


if __name__ == "__main__":
    main()
