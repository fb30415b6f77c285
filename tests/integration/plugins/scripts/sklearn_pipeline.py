"""scikit-learn: `RandomizedSearchCV` over a `Pipeline`, seeded."""

import hooks
import joblib
from scipy.stats import loguniform
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import RandomizedSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler


class Marked(LogisticRegression):
    def fit(self, X, y):
        hooks.mark()
        return super().fit(X, y)


def main():
    X, y = load_breast_cancer(return_X_y=True)
    steps = [("scale", StandardScaler()), ("pca", PCA(random_state=0)), ("fit", Marked())]
    space = {"pca__n_components": [2, 5, 9], "fit__C": loguniform(1e-3, 1e2)}
    with joblib.parallel_config(hooks.joblib_backend()):
        search = RandomizedSearchCV(
            Pipeline(steps), space, n_iter=8, cv=3, random_state=1, n_jobs=-1
        ).fit(X, y)
    print(search.best_params_, search.best_score_)


if __name__ == "__main__":
    main()
