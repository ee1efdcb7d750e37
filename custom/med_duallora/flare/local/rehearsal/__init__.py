"""A rehearsal of production on one machine: provisioned kits, real processes, mutual TLS.

record.py         where everything of a federation lies, and which processes it started
provision.py      project.yml -> startup kits, with FLARE's own provisioner; site_kit/ installs them
rehearsal.py      up and down
registration.py   which sites are registered with the server
running.py        whether a federation runs, said before anything slow is imported
admin.py          the admin console's commands, as a person with a role
following.py      a job from its submission to its result
progress.py       what a running job says about itself
verdict.py        what FLARE's answers to a job mean
"""
