"""scikit-learn over the backend of joblib: searches in searches, forests, errors, no run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.integration.runs import Place, ledger

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
pytestmark = pytest.mark.plugins

TIMEOUT_S = 110.0

HEAD = """
import warnings
import joblib
import numpy as np
from resilient_scoop import Executor
from resilient_scoop.contrib.joblib import register
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_iris, make_regression
from sklearn.ensemble import (
    BaggingClassifier, RandomForestClassifier, RandomForestRegressor, VotingClassifier,
)
from sklearn.experimental import enable_halving_search_cv
from sklearn.feature_selection import RFECV
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV, cross_val_predict, cross_val_score,
    cross_validate, learning_curve, validation_curve,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

warnings.simplefilter("ignore")
X, y = load_iris(return_X_y=True)


class Marked(KNeighborsClassifier):
    def fit(self, X, y):
        with open("ledger", "a") as file:
            file.write(f"{self.n_neighbors} {len(X)}\\n")
        return super().fit(X, y)


class Refusing(KNeighborsClassifier):
    def fit(self, X, y):
        if self.n_neighbors == 3:
            raise ValueError("three is refused")
        return super().fit(X, y)
"""


def both(place: Place, main: str) -> str:
    """Return what a script prints with the backend; check that joblib's sequential one gives the same."""
    body = "".join(f"        {line}\n" for line in main.strip("\n").splitlines())
    script = f"{HEAD}\n\nif __name__ == '__main__':\n    register()\n"
    script += "    with joblib.parallel_config(BACKEND):\n"
    (place.folder / "plain.py").write_text(script.replace("BACKEND", "'sequential'") + body)
    expected = subprocess.run(
        [sys.executable, "plain.py"],
        cwd=place.folder, env=place.env(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert expected.returncode == 0, expected.stderr
    (place.folder / "ledger").unlink(missing_ok=True)
    (place.folder / "script.py").write_text(script.replace("BACKEND", "'rscoop'") + body)
    done = place.rscoop("run", "-q", "-n", "2", "script.py", timeout_s=TIMEOUT_S)
    place.assert_nothing_left()
    assert done.expect() == expected.stdout
    assert place.status()["done"] > 0, "no call has left the process of the script"
    return done.out


def test_searches_give_the_same_answers(place: Place) -> None:
    both(
        place,
        """
grid = {
    "kneighborsclassifier__n_neighbors": [1, 3, 9],
    "kneighborsclassifier__weights": ["uniform", "distance"],
}
model = make_pipeline(StandardScaler(), KNeighborsClassifier())
for search in (
    GridSearchCV(model, grid, cv=3, n_jobs=-1, return_train_score=True),
    RandomizedSearchCV(model, grid, n_iter=4, cv=3, n_jobs=2, random_state=3),
    HalvingGridSearchCV(model, grid, cv=3, n_jobs=-1, random_state=4),
):
    search.fit(X, y)
    print(search.best_params_, search.cv_results_["mean_test_score"].tolist(), search.predict(X).sum())
""",
    )


def test_validation_of_models_gives_the_same_answers(place: Place) -> None:
    both(
        place,
        """
model = DecisionTreeClassifier(random_state=1)
print(cross_val_score(model, X, y, cv=5, n_jobs=-1).tolist())
scored = cross_validate(model, X, y, cv=3, n_jobs=-1, scoring=["accuracy", "f1_macro"])
print(scored["test_f1_macro"].tolist())
print(cross_val_predict(model, X, y, cv=3, n_jobs=-1).tolist())
curve = learning_curve(model, X, y, cv=3, n_jobs=-1, shuffle=True, random_state=1)
print([part.tolist() for part in curve[1:3]])
print([part.tolist() for part in validation_curve(
    model, X, y, param_name="max_depth", param_range=[1, 2], cv=3, n_jobs=-1)])
print(RFECV(model, cv=3, n_jobs=-1).fit(X, y).support_.tolist())
""",
    )


def test_estimators_that_fit_in_parallel_give_the_same_answers(place: Place) -> None:
    both(
        place,
        """
forest = RandomForestClassifier(20, random_state=1, n_jobs=-1).fit(X, y)
print(forest.predict_proba(X).sum(axis=0).tolist(), forest.feature_importances_.tolist())
print(BaggingClassifier(n_estimators=8, random_state=1, n_jobs=-1).fit(X, y).predict(X).tolist())
print(OneVsRestClassifier(LogisticRegression(), n_jobs=-1).fit(X, y).predict(X).tolist())
voting = VotingClassifier([("a", LogisticRegression()), ("b", KNeighborsClassifier())], n_jobs=-1)
print(voting.fit(X, y).predict(X).tolist())
A, b = make_regression(60, 5, n_targets=3, random_state=1)
print(MultiOutputRegressor(RandomForestRegressor(5, random_state=2), n_jobs=-1).fit(A, b).predict(A).sum())
""",
    )


def test_a_search_in_a_cross_validation_uses_the_run(place: Place) -> None:
    both(
        place,
        """
inner = GridSearchCV(Marked(), {"n_neighbors": [1, 5]}, cv=2, n_jobs=-1)
print(cross_val_score(inner, X, y, cv=3, n_jobs=-1).tolist())
""",
    )

    assert place.status()["done"] == 3 + 3 * 4


def test_a_fit_that_fails_is_scored_as_the_user_wants(place: Place) -> None:
    both(
        place,
        """
grid = {"n_neighbors": [1, 3, 5]}
search = GridSearchCV(Refusing(), grid, cv=2, n_jobs=-1, error_score=0).fit(X, y)
print(search.cv_results_["mean_test_score"])
try:
    GridSearchCV(Refusing(), grid, cv=2, n_jobs=-1, error_score="raise").fit(X, y)
except ValueError as error:
    print(error)
print(cross_val_score(Marked(), X, y, cv=2, n_jobs=-1).tolist())
""",
    )


OUTSIDE = (
    HEAD
    + """
if __name__ == "__main__":
    with Executor(max_workers=2, run="search") as executor:
        register(executor=executor)
        with joblib.parallel_config("rscoop"):
            print(GridSearchCV(Marked(), {"n_neighbors": [1, 5]}, cv=3, n_jobs=-1).fit(X, y).best_params_)
"""
)


def test_a_program_without_a_run_finds_its_fits_when_it_is_started_again(place: Place) -> None:
    place.write(OUTSIDE)
    printed = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "script.py"],
            cwd=place.folder, env=place.env(), capture_output=True, text=True, timeout=TIMEOUT_S,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        place.assert_nothing_left()
        printed.append(done.stdout)

    assert printed[0] == printed[1]
    fits = [line for line in ledger(place) if line.endswith(" 100")]
    assert len(fits) == 6
    assert len(ledger(place)) == 6 + 2  # the best model is fitted in the program itself
