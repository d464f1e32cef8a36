"""How long a step takes here.

clock       time on the processor and on CUDA
rates       how fast this machine multiplies, attends and copies
prediction  from these and a plan to seconds
"""
