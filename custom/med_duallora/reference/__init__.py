"""The reference of every setting, from the dataclasses that hold them.

docstrings     what a setting means: the ``Args:`` of its class
entries        the settings of all scopes: name, type, default, limits, meaning
guidance       how to choose; the figures in it are computed
page           docs/settings.md
terminal       the same on a terminal
"""
