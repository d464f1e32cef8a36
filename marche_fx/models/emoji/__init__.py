"""Colour emoji of 64x64 pixels in nine groups, and the training of a MAR that draws them.

names      from a file's name to its emoji      pictures  from vendors' folders to one file      dataset  read it
training   ``python -m marche_fx.models.emoji.training``
"""
