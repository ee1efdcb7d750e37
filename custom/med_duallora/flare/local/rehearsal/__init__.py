"""A rehearsal of production on one machine: provisioned kits, real processes, mutual TLS.

record.py         where everything of a federation lies, and which processes it started
provision.py      project.yml -> startup kits, with FLARE's own provisioner
kits.py           what each administrator then does to the kit of the server or of a site
processes.py      start, recognise and stop the processes
admin.py          the admin console's commands, as a person with a role
jobs.py           which job folder is submitted
progress.py       what a running job says about itself
verdict.py        what FLARE's answers to a job mean
following.py      a job from its submission to its result
registration.py   which sites are registered with the server
running.py        whether a federation runs, said before anything slow is imported
rehearsal.py      up and down
actions.py        what the command line does with jobs
"""
