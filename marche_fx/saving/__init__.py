"""Captured and compiled steps in files, for the next process.

captures     `save` and `load`; start here
fingerprint  what a capture depends on       kernels  what was compiled
files        files that are written whole or not at all, and say so when damaged      refused  what the system refuses
"""
