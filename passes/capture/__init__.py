"""A method of a model and real arguments to a functional ATen graph that shares the model's weights.

capture    the pass; start here         captured   what it makes: `Capture`, and for which calls that holds
step       a method as a module of its tensors         export     `torch.export` on it
rehearsal  one real call before it is traced           copies     the modules that both run on
surroundings  the globals and classes that it reads    leftovers  traced tensors that end there, taken out
branches   on arguments: decided, asked again later    lines      at which line something happened
undone     writes into a model's tensors
alone      one trace at a time, in its thread alone    dropping   lengths that depend on values
arguments  trees of tensors and plain values           refusals   steps that no cached step could repeat
derived    what it computes of its arguments, and where it leaves that
left       plain values that it leaves in attributes     kinds      in what calls differ that each cost a capture
tables     attributes that a step sets for itself      watched    those that it writes before it reads them
structure  what a capture bakes in beside weights      normalise  fewer kinds of operators
constants  tensors that count by their values        digests  what is baked in, comparable between processes
writes     into arguments, of arguments alone         beside     into tensors that are no weights, as globals
draws      random numbers that decide nothing, drawn at every call
lengths    one capture for many lengths    sizes  what its symbols stand for    fixed  where one became a number
scripts    functions under `torch.jit.script`, where Python has another
flex       `flex_attention`, whose rules are functions of Python, as attention over all keys
bools      one capture for a mask of numbers and a bool one
specialise  a graph with numbers for symbols       alike  whether two captures are one
counting   how many rows are picked by values, which a trace does not say
opaque     children called as they are: what they give for a row       apart_rows  and that it is of that row alone
any_rows   one capture of a denoiser for any number of rows
stored     a capture of another process, and what must be here again for it to hold
"""
