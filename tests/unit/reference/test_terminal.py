from med_duallora.commands.config import scopes
from med_duallora.reference.entries import find_setting, settings_of
from med_duallora.reference.terminal import WIDTH, explained, listed

SCOPES = scopes()
SETTINGS = [setting for scope in SCOPES for setting in settings_of(scope)]


def test_every_setting_is_listed_once() -> None:
    lines = listed(SCOPES)
    for setting in SETTINGS:
        assert sum(line.startswith(f"  {setting.key} ") for line in lines) == 1, setting.key


def test_a_value_that_differs_from_the_default_is_marked() -> None:
    lines = listed(SCOPES[:1], {"train.n_rounds": "20"})
    (line,) = (line for line in lines if line.startswith("  train.n_rounds "))
    assert "20  (default: 12)" in line
    assert not any("(default: 8)" in line for line in lines)


def test_an_explanation_has_type_default_limits_and_guidance() -> None:
    text = "\n".join(explained(find_setting("lora.rank_global", SETTINGS)))
    for part in ("whole number", "8", "between 0 and 256", "--set lora.rank_global=8", "Start with the default"):
        assert part in text
    assert "`" not in text


def test_lines_fit_a_terminal() -> None:
    for setting in SETTINGS:
        assert all(len(line) <= WIDTH + 25 for line in explained(setting)), setting.key
