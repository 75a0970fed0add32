"""Other experiment trackers under the loop that times ours (`benchmarks.beside_peers`).

`loop` and `loggers` run in the peers' environments, and import the standard library only.
"""
