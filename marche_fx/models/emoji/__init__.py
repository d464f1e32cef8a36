"""Colour emoji of 64x64 pixels in Unicode's nine groups, and the training of a MAR that draws them.

names      from a file's name to its emoji     pictures  ``python -m marche_fx.models.emoji.pictures``: one file of many
dataset    that file, read                     training  ``python -m marche_fx.models.emoji.training``
judge      of what is drawn
"""
