"""Decoding loops in the manner of public ones, each with what a user passes: nothing.

models   small models of words, of the kinds that such loops decode with
loops    the loops; each is decoded by the original and by the transformed model on the same tokens
table    what becomes of each: rows, age of what it reads, what the user is told, drift
"""
