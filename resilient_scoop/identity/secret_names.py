"""Names that mark a value as a secret, which is not shown and not stored unnecessarily."""

from __future__ import annotations

import re
from typing import Final

SECRET: Final = re.compile(
    "TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|KEY|CREDENTIAL|COOKIE", re.IGNORECASE
)
