"""The first byte of each payload, which identifies what follows.

| first byte | what follows | made by |
| --- | --- | --- |
| 0x80 | the rest of a plain pickle, to which this byte belongs | `payload.codec` |
| `D` | a pickle of dill's | `payload.codec` |
| `O` | a pickle and its out-of-band buffers | `payload.codec` |
| `B` | the reference of a file that holds one of the above | `payload.files` |
| `X` | an exception of user code with its frames | `payload.exceptions` |
| `E` | an error of the broker, without a pickle | `wire.broker_errors` |

Each tag is one byte of type `bytes`; `payload[0]` is compared with `TAG[0]`, `payload[:1]` with `TAG`.
"""

from __future__ import annotations

from typing import Final

PICKLE: Final = b"\x80"
DILL: Final = b"D"
BUFFERS: Final = b"O"
FILE: Final = b"B"
EXCEPTION: Final = b"X"
BROKER_ERROR: Final = b"E"
