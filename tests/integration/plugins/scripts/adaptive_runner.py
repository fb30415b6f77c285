"""adaptive: `BlockingRunner(executor=executor)`; the points depend on the order of completion."""

import adaptive
import hooks


def step(x):
    hooks.mark()
    return 1.0 if x > 0.3 else x / 10


def main():
    learner = adaptive.SequenceLearner(step, [i / 20 for i in range(-20, 20)])
    with hooks.executor() as executor:
        adaptive.BlockingRunner(
            learner, goal=lambda learner: learner.done(), executor=executor, ntasks=2
        )
    print(learner.result())


if __name__ == "__main__":
    main()
