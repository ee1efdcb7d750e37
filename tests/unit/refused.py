"""What tests ask of a refused setting: which one, what it was and what it must be. The sentence is the error's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import ANY

import pytest

from med_duallora.errors import ConfigError


@contextmanager
def refused(key: str, value: Any = ANY, limit: Any = ANY) -> Iterator[pytest.ExceptionInfo[ConfigError]]:
    """Expect a ConfigError about a setting.

    Args:
        key: whole name of the setting.
        value: what it was set to; left out: anything.
        limit: what it must be; left out: anything.
    """
    with pytest.raises(ConfigError) as caught:
        yield caught
    found = caught.value
    assert (found.key, found.value, found.limit) == (key, value, limit)
