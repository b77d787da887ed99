"""Texts from strangers, as they are shown; JSON as it is read."""

import json
import unicodedata
from typing import Any

#: Categories of Unicode that have no shape: control characters, directions, halves of pairs.
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def shown(text: str) -> str:
    r"""Give a text as it is printed: on one line, and without power over a terminal.

    Names in a file, and of files, may hold any bytes. What has no shape is written as ``\x1b`` or
    ``\u202e``, and a byte that is no UTF-8 as ``\xff``.
    """
    if text.isprintable():
        return text
    return "".join(map(_shown, text))


def _shown(sign: str) -> str:
    if sign == " " or unicodedata.category(sign) not in _UNSEEN:
        return sign
    code = ord(sign)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte that is no UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def read_json(text: str | bytes) -> Any:
    """Read a JSON text.

    Raises
    ------
    ValueError
        If it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def one_line(error: BaseException) -> str:
    """What an error of another library says, on one line."""
    return shown(" ".join(str(error).split()))
