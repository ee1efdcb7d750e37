"""A training that goes on by itself until all planned rounds are done; what decides, without FLARE.

look      what the federation showed at one moment
state     what a campaign knows, and what survives it when it is killed
rules     what it was asked for, and how long it waits for what
machine   what to do next: from one look to an order
timers    how long something has been so
journal   state, events and results on disk; one campaign per folder at a time
hooks     who else is told of an event: a command, a web address
"""
