"""What a user calls to have a model transformed and to decode with it.

transform  `transform` and `decoding`: the methods of a copy are replaced
children   loops that call a child of the model and never its step
step       what stands in for a step method: finds or makes its program, opens or finds the session
head       the head that a loop runs between steps, with faster products
"""
