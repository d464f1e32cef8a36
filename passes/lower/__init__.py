"""The rewritten region as compiled code.

lower      the pass; start here
repeats    layers that are the same computation, so that they are compiled once
compiled   a module handed to `torch.compile`
shared     code that programs of many lengths share
symbolic   which sizes are the number of active tokens
products   products with float32 weights by oneDNN
"""
