"""What one node is, whatever the graph: nothing here knows tokens.

operands   its tensor operands and other arguments, and sizes that may be symbolic
source     where it comes from, in the user's terms: module path and source line
reach      what is computed from what
opaque     children that a graph calls as they are, by one operator
counts     what symbols without a value were in the real call
"""
