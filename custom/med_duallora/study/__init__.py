"""A study: methods, settings, cohorts and seeds in one process, with intervals and tests; `med-duallora study`.

``arms`` says what is compared, ``plan`` which runs that makes, ``splits`` deals subjects out, ``running`` does one run,
``pool`` all of them, ``statistics`` computes and ``page`` shows. Nothing here knows FLARE.
"""
