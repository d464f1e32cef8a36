"""The passes: from a model's method to a program that computes active tokens only. Each is usable by itself.

`pipeline` has them in the order in which they run. By folder, each of which imports only those above it:

graph      what one node is: its operands, sizes, source line, and what is computed from it
rules      what every operator does to dimensions: the table that proves which operators are token-wise
capture    a method and its arguments to a functional ATen graph
analysis   what a graph tells: token axis, attention and MLP sites, the region, costs; together a `Plan`
rewrite    the plan applied: dropped tokens hidden, active rows gathered, caches written, signals inserted
lower      the rewritten region to compiled code

`trail` keeps note of what each pass found and how long it took; `shown` tells it at length where PyTorch traces.
`recent` bounds what is kept: of too many things those go that were not used for longest.
`uncollected` keeps Python from looking for garbage meanwhile.
"""
