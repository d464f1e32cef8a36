"""A method of a model and real arguments to a functional ATen graph that shares the model's weights.

capture    the pass; start here         captured   what it makes: `Capture`, and for which calls that holds
export     `torch.export` on a method   dropping   lengths that depend on values, where masked tokens are dropped
arguments  trees of tensors and plain values           refusals   steps that no cached step could repeat
structure  what a capture bakes in beside weights      normalise  fewer kinds of operators
pickled    a capture as bytes
"""
