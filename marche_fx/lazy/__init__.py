"""Results that wait until they are read, so that a step learns which of its rows are wanted.

tensor       `LateTensor`, which a transformed step returns; `resolved` gives the values
memory       what views of a late tensor share: what it holds now, and reading it
expressions  how a value is computed, of rows or as a whole     demand    which rows of a step that takes
computed     expressions that are computed of others            operands  what operators read of expressions
operators    operators that compute each row alone, recorded    choices   ``where`` and ``cat``, which take whole rows
draws        random numbers, drawn for all rows at once         writes    what a loop writes into a late tensor
moves        operators that put whole rows elsewhere            picks     what an index of tensors reads of a view
geometry     where a view's elements are, by row and channel    gathers   what ``gather`` along rows reads of a view
rows         the tokens that a result's rows are computed of    modes     a step runs as if the loop called it there
trees        arguments of operators, and lists of them        frames   the modules that run around it
"""

from .tensor import LateTensor, resolved

__all__ = ["LateTensor", "resolved"]
