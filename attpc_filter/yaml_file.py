"""YAML files, read with limits."""

from pathlib import Path
from typing import Any

import yaml

from attpc_filter.errors import UsageError

_MOST_BYTES = 4 << 20


class _Loader(yaml.SafeLoader):
    """Reads YAML without aliases: a few lines of them can stand for more than the memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.YAMLError(f"line {mark.line + 1}: aliases (*name) are not read")
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises
    ------
    UsageError
        If it cannot be read, is no YAML, has aliases, is nested too deeply, or holds over 4 MiB.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise UsageError(f"{path}: more than {_MOST_BYTES >> 20} MiB: no file of options")
        return yaml.load(content.decode("utf-8"), _Loader)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except RecursionError:
        raise UsageError(f"{path}: nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
