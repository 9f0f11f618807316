from __future__ import annotations

import pytest

from afi_search.cli.run import read_settings
from afi_search.space import SpaceFileError


@pytest.mark.parametrize("text", ["recipe.epochs", "=3", "recipe..epochs=3", "recipe.epochs=[3"])
def test_what_is_no_setting_is_told(text: str) -> None:
    with pytest.raises(SpaceFileError, match=r"^--set "):
        read_settings([text])
