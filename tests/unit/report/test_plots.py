"""What sites look like in the plots of a report."""

import itertools
from types import SimpleNamespace

from med_duallora.report.plots import COLOURS, looks, site_styles


def test_thirty_six_sites_look_different_and_neighbours_share_nothing():
    run = SimpleNamespace(sites=[f"site-{number}" for number in range(36)])
    styles = site_styles(run)
    assert list(styles) == run.sites
    assert len({(style["color"], style["marker"]) for style in styles.values()}) == 36
    for one, other in itertools.pairwise(list(styles.values())):
        assert not set(map(str, one.values())) & set(map(str, other.values()))
    lines = [(style["color"], str(style["linestyle"])) for style in list(styles.values())[:12]]
    assert len(set(lines)) == 12, "in print without markers, too"


def test_more_things_than_looks_are_drawn_all_the_same():
    assert len(list(itertools.islice(looks(), 100))) == 100
    assert next(looks())[0] == COLOURS[0]
