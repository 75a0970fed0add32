"""Benchmarks: one question a file, run by `python -m benchmarks [NAME]` or `make bench NAME=...`.

They report medians and ratios and never assert a time: what a machine does under load is no property of the code. Each figure
names its unit in its key; what a figure leaves out stands in its file's docstring.
"""
