"""What every operator does to dimensions: the proof that an operator is token-wise is a line of a table.

dim_map    what a rule answers          notation   a rule in one line          functions   rules that need more
table      the rules, and `dim_map(node)`, the question that every pass asks; start here
reshapes   how `view` cuts and joins    moves      operators that compute nothing    flops   how much one computes
perturb    rules checked by changing rows and looking at what moves            register    rules of the user's own
"""
