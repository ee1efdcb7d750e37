"""From a probability to a decision, in the words of the results."""

DISEASE, NORMAL = "disease", "normal"


def decision(probability: float, threshold: float) -> str:
    """Return ``disease`` from the threshold on, else ``normal``."""
    return DISEASE if probability >= threshold else NORMAL
