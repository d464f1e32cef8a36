"""Captured and compiled steps in files, for the next process.

captures     `save_captures` and `load_captures`; start here
container    a file of JSON and tensors             kernels  what was compiled, in a file of its own
fingerprint  what a capture depends on              signing  which files this user wrote on this machine
files        files that are written whole or not at all, and say so when damaged
folder       folders that belong to what their results come from
locks        files and folders that one process at a time writes
refused      what the system refuses
"""
