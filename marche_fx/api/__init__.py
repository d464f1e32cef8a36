"""What a user calls to have a model transformed and to decode with it.

transform  `transform`: the methods of a copy are replaced; by options, checked, noted in an optimization
decoding   `decoding` and `session`, and loop methods, each call of which is one
placement  models that are wrapped for several devices, or whose weights are elsewhere: refused
samples    `keep_samples`: a loop that stops decoding some samples of its batch
children   loops that call a child of the model and never its step
step       what stands in for a step method: opens or finds the session, calls what was captured
captures   what was captured of it: finds or makes the program that serves a call
forms      arguments passed as they first were, so that one capture serves every way
refusals   what it refuses or says when it is called or captured
left       what it leaves in attributes, which its captures do not: told of
programs   how it finds a program, and how many are kept
lengths    how it captures: for a new length without a trace, where one capture holds for many
head       the head that a loop runs between steps, with faster products
recipes    a recipe given: found, checked against the model, told to its loop
denoising  the same with another denoising, told how far the decoding is
enclosing  whether torch.compile was put around a step
"""
