"""The rewritten region as compiled code.

lower      the pass; start here
repeats    layers that are the same computation, so that they are compiled once
compiled   a module, and what it was compiled to for each kind of calls
standalone compiles one by itself, without Dynamo    conditions   for which calls the code is right
vectors    which vector instructions it may use
kept       what this process compiled, by what it computes; written to files and read from them
shared     code that programs of many lengths share
relations  what holds of sizes, as a text that can do nothing but compare them
symbolic   which sizes are the number of active tokens
products   products with float32 weights by oneDNN    packed   the same with weights packed for few rows
ranges     what a running profiler is told
"""
