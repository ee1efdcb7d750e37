"""Federations on one machine: the simulator, and the rehearsal of a provisioned federation."""
