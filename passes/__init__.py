"""The passes, in pipeline order; each is usable by itself.

capture -> pack -> axes -> attention, mlp     read and plan
split -> hooks -> lower                       apply the plan
"""
