"""Names that tell that a value is a secret: it is not shown, nor kept where it need not be."""

from __future__ import annotations

import re
from typing import Final

SECRET: Final = re.compile(
    "TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|KEY|CREDENTIAL|COOKIE", re.IGNORECASE
)
