"""optuna: `optimize` of `resilient_scoop.contrib.optuna`: trials are told in order."""

import hooks
import optuna


def objective(trial):
    hooks.mark()
    x = trial.suggest_float("x", -10, 10)
    return (x - 2) ** 2 + (0 if trial.suggest_categorical("kind", ["a", "b"]) == "a" else 1)


def serial(study, space, batches, size):
    for _ in range(batches):
        trials = [study.ask(space) for _ in range(size)]
        for trial in trials:
            study.tell(trial, objective(trial))


def main():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=3))
    space = {
        "x": optuna.distributions.FloatDistribution(-10, 10),
        "kind": optuna.distributions.CategoricalDistribution(["a", "b"]),
    }
    if hooks.BUILTIN:
        serial(study, space, 8, 4)
    else:
        from resilient_scoop.contrib.optuna import optimize

        optimize(study, objective, space, n_trials=32, batch_size=4)
    print(study.best_params, study.best_value, [trial.value for trial in study.trials][-3:])


if __name__ == "__main__":
    main()
