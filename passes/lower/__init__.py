"""The rewritten region as compiled code.

lower      the pass; start here
repeats    layers that are the same computation, so that they are compiled once
symbolic   which sizes are the number of active tokens
products   products with float32 weights by oneDNN
"""
