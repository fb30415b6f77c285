"""asyncio: `loop.run_in_executor(executor, f, x)`."""

import asyncio

import hooks


def half(x):
    hooks.mark()
    return x / 2


async def ask(executor):
    loop = asyncio.get_running_loop()
    return await asyncio.gather(*(loop.run_in_executor(executor, half, x) for x in range(40)))


def main():
    with hooks.executor() as executor:
        print(asyncio.run(ask(executor)))


if __name__ == "__main__":
    main()
