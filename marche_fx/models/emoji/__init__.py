"""Colour emoji of 64x64 pixels in Unicode's 98 subgroups, and the training of a MAR that draws them.

names          from a file's name to its emoji     pictures      ``python -m marche_fx.models.emoji.pictures``: one file
dataset        that file, read                     autoencoder   pictures as latents; `autoencoding` trains it
drawing        pictures of what is learned         judge         of what is drawn
training       ``python -m marche_fx.models.emoji.training``
"""
