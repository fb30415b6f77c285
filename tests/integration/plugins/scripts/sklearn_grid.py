"""scikit-learn: `GridSearchCV` in `joblib.parallel_config("rscoop")`."""

import hooks
import joblib
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier


class Marked(KNeighborsClassifier):
    def fit(self, X, y):
        hooks.mark()
        return super().fit(X, y)


def main():
    X, y = load_iris(return_X_y=True)
    grid = {"n_neighbors": [1, 3, 5, 9, 15, 31], "weights": ["uniform", "distance"]}
    with joblib.parallel_config(hooks.joblib_backend()):
        search = GridSearchCV(Marked(), grid, cv=3, n_jobs=-1).fit(X, y)
    print(search.best_params_, search.cv_results_["mean_test_score"].tolist())


if __name__ == "__main__":
    main()
