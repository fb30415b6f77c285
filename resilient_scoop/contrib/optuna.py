"""Optuna: `optimize`, whose trials are calls of a run, told to the study in order.

    from resilient_scoop.contrib.optuna import optimize

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=1))
    space = {"x": optuna.distributions.FloatDistribution(-10, 10)}
    optimize(study, objective, space, n_trials=100, batch_size=8)

`study.optimize(n_jobs=...)` of Optuna uses threads, and its answer depends on time. Here a batch of
trials is asked for, computed, and told in the order of asking, so that a seeded sampler gives one
answer on any number of workers. In a session or with an executor, give `submit=session.submit`.

Keep the study in memory (the default): a resumed run repeats it from the journal, and a database would
have the trials twice.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from resilient_scoop import futures

try:
    import optuna
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "resilient_scoop.contrib.optuna needs Optuna: pip install optuna", name=error.name
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["optimize"]


def optimize(
    study: Any,
    objective: Callable[[Any], Any],
    space: Mapping[str, Any],
    n_trials: int,
    batch_size: int = 8,
    catch: tuple[type[Exception], ...] = (),
    submit: Callable[..., Any] = futures.submit,
) -> None:
    """Compute `n_trials` trials of a study, `batch_size` at a time.

    `objective` gets an `optuna.trial.FixedTrial` with the parameters of `space`: its `suggest_…`
    methods return them. Reports to it have no effect: it is in another process. `catch` names
    errors that fail a trial; other errors fail it and are raised. `optuna.TrialPruned` prunes it.
    `submit` makes the calls: that of a session or an executor fits, too.

    The batch size changes which points the sampler asks for: keep it for a resume.
    """
    left = n_trials
    while left > 0:
        trials = [study.ask(dict(space)) for _ in range(min(batch_size, left))]
        left -= len(trials)
        evaluate = functools.partial(_evaluate, objective)
        asked = [submit(evaluate, trial.params, trial.number) for trial in trials]
        failed: BaseException | None = None
        for trial, future in zip(trials, asked, strict=True):
            error = future.exception()
            if error is None:
                study.tell(trial, future.result())
            elif isinstance(error, optuna.TrialPruned):
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                if not isinstance(error, catch):
                    failed = failed or error
        if failed is not None:
            raise failed


def _evaluate(objective: Callable[[Any], Any], params: dict[str, Any], number: int) -> Any:
    return objective(optuna.trial.FixedTrial(params, number))
