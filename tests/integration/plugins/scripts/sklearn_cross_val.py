"""scikit-learn: `cross_val_score` and `permutation_importance` in `parallel_config("rscoop")`."""

import hooks
import joblib
from sklearn.datasets import load_diabetes
from sklearn.inspection import permutation_importance
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_score


class Marked(Ridge):
    def fit(self, X, y):
        hooks.mark()
        return super().fit(X, y)

    def predict(self, X):
        hooks.mark()
        return super().predict(X)


def main():
    X, y = load_diabetes(return_X_y=True)
    with joblib.parallel_config(hooks.joblib_backend(), n_jobs=2):
        print(cross_val_score(Marked(), X, y, cv=8).tolist())
        model = Marked().fit(X, y)
        shuffled = permutation_importance(model, X, y, n_repeats=2, random_state=0)
    print(shuffled.importances_mean.tolist())


if __name__ == "__main__":
    main()
