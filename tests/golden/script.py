"""What the golden runs ran; it must stay as it is, or its results would be another code's."""

import sys
import time
from pathlib import Path

from resilient_scoop import futures, shared


def square(number: int) -> int:
    return number * number


def scaled(number: int) -> int:
    return int(number * shared.getConst("scale"))


def fails(number: int) -> int:
    raise ValueError(f"no {number}")


def blob(number: int) -> bytes:
    return bytes([number]) * 1_200_000


def large(number: int) -> list[bytes]:
    return [bytes([number]) * 1_200_000]


def first_byte(parts: list[bytes]) -> int:
    return parts[0][0]


def nested(number: int) -> int:
    return sum(futures.map(square, range(number)))


def slow(number: int) -> int:
    if number > 9 and not Path(sys.argv[1]).exists():
        time.sleep(600)
    return number


def main() -> None:
    print("begin", flush=True)
    shared.setConst(scale=10, table=list(range(1000)))
    print(sum(futures.map(square, range(100))))
    print(sum(futures.map(scaled, range(10))))
    for future in futures.as_completed([futures.submit(square, n) for n in range(8)]):
        print("completed", future.result())
    print("done", futures.submit(square, 3).done())
    try:
        futures.submit(fails, 3).result()
    except ValueError as error:
        print("failed", error)
    print([len(each) for each in futures.map(blob, range(2))])
    print([len(each[0]) for each in futures.map(large, range(2))])
    print(list(futures.map(first_byte, [[b"a" * 1_200_000], [b"b" * 1_200_000]])))
    print(list(futures.map(nested, range(5))), flush=True)
    print(sum(futures.map(slow, range(20))))
    print("end")


if __name__ == "__main__":
    main()
