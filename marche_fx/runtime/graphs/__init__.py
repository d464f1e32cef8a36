"""Steps on a GPU as CUDA graphs: one launch in place of hundreds.

store      the graphs of a transformed model          step      those of one rewritten step
buffers    memory that a session takes over           rows      active rows, padded to a bucket
recorded   one step, piece by piece                   recorder  what records and replays
counts     what happened, for reports
"""
