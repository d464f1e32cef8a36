"""A capture as JSON and tensors, and back with nothing in it executed: what is read was perhaps written by a stranger.

captures     start here: a capture, and one for any number of rows
graphs       a graph: operators by name             operators  which of them a file may call
values       plain values                           expressions  sizes of symbols
trees        how arguments and results are nested   functions  what a step asked of its arguments
constants    tensors that are neither weights nor arguments
trial        every operator tried on stand-ins
classes      classes that this process has loaded   refused  why something is of no use
"""
