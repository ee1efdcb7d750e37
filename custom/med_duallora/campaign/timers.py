"""How long something has been so, by looks alone."""


class Timers:
    """Remembers since when facts hold; whoever asks brings the time along."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._values: dict[str, object] = {}
        self._told: set[str] = set()

    def clear(self) -> None:
        """Forget everything: what was waited for is over."""
        self._since, self._values, self._told = {}, {}, set()

    def forget(self, name: str) -> None:
        """Let a fact's time begin anew."""
        self._since.pop(name, None)

    def lasting(self, name: str, fact: bool, now: float) -> float | None:
        """Return for how many seconds a fact has held, look by look; None where it does not hold."""
        if not fact:
            self._since.pop(name, None)
            return None
        return now - self._since.setdefault(name, now)

    def held(self, name: str, fact: bool, now: float, seconds: float) -> bool:
        """Return whether a fact has held for so long."""
        lasting = self.lasting(name, fact, now)
        return lasting is not None and lasting >= seconds

    def unchanged(self, name: str, value: object, now: float) -> float:
        """Return for how many seconds a value has been the same."""
        if self._values.get(name) != value:
            self._values[name] = value
            self.forget(name)
        return self.lasting(name, True, now) or 0.0

    def every(self, name: str, seconds: float, now: float) -> bool:
        """Return True at the first time, and then again each time so many seconds have passed."""
        last = self._since.get(name)
        if last is not None and now - last < seconds:
            return False
        self._since[name] = now
        return True

    def first_time(self, name: str) -> bool:
        """Return whether this is asked for the first time since ``clear`` or ``again``."""
        known = name in self._told
        self._told.add(name)
        return not known

    def again(self, name: str) -> bool:
        """Let ``first_time`` be true again; return whether it had been asked."""
        known = name in self._told
        self._told.discard(name)
        return known
