"""Captured and compiled steps in files, for the next process.

captures     `save_captures` and `load_captures`; start here
fingerprint  what a capture depends on       kernels  what was compiled
files        files that are written whole or not at all, and say so when damaged
"""
