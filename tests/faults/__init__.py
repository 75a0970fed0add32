"""The numbered table of faults: what can go wrong, what then must hold, and the tests that make it go wrong.

`python -m tests.faults` prints `docs/faults.md`; the tests name their rows by mark, so the page cannot claim a test that is not there.
"""
