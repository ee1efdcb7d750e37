"""One file per sub-command: ``add_parser(commands)`` declares it and sets ``run``; heavy imports happen in ``run``."""
