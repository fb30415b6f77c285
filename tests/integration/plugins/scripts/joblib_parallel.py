"""joblib: a generator of results, a `Parallel` inside a task, and a failed task."""

import hooks
import joblib


def square(x):
    hooks.mark()
    return x * x


def row(n):
    hooks.mark()
    return sum(joblib.Parallel(n_jobs=-1)(joblib.delayed(square)(i) for i in range(n)))


def refuse(x):
    hooks.mark()
    if x == 3:
        raise ValueError(f"not {x}")
    return x


def main():
    with joblib.parallel_config(hooks.joblib_backend()):
        parallel = joblib.Parallel(n_jobs=2, return_as="generator")
        print(list(parallel(joblib.delayed(square)(i) for i in range(20))))
        print(joblib.Parallel(n_jobs=2)(joblib.delayed(row)(n) for n in range(6)))
        try:
            joblib.Parallel(n_jobs=2)(joblib.delayed(refuse)(i) for i in range(5))
        except ValueError as error:
            print("error:", error)


if __name__ == "__main__":
    main()
