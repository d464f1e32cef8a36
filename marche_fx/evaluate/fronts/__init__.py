"""``python -m marche_fx.evaluate.fronts``: Frechet distance against the cost of a whole generation, way by way.

command    its arguments, and what it writes; what is compared on each task; `__main__` runs it
draw       features of every way and batch, in a folder that goes on where it was ended
costs      FLOPs and times of a whole generation; `measured` keeps them
front      rows, and the ways compared with one another
table, plot   what is printed and drawn
"""
