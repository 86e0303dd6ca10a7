from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from antiphon.backend import BackendConfig
from antiphon.errors import SettingsError
from antiphon.settings import Settings

SETTINGS = Settings(app_key="key", app_id="1", app_secret="hidden-secret")


def test_only_the_application_has_to_be_named() -> None:
    config = BackendConfig(settings=SETTINGS)

    assert config.database_url == "sqlite:///antiphon.db"
    assert config.token_lifetime == timedelta(days=30)
    assert config.allowed_origins == ()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"settings": Settings(app_key="key")}, "app_id and app_secret"),
        ({"settings": SETTINGS, "token_lifetime": timedelta(0)}, "lifetime"),
        ({"settings": SETTINGS, "publish_timeout": 0.0}, "publish_timeout"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused(given: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        BackendConfig(**given)


def test_its_text_holds_no_secret() -> None:
    config = BackendConfig(settings=SETTINGS, database_url="postgresql://u:hidden-word@h/n")

    assert "hidden" not in repr(config)
