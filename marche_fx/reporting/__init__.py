"""What was found, what is done with it, and what a session computed.

report          `explain` and `report`; start here       first_calls   of a loop that runs
step_report     one captured step: what was found in it, what is done with it, what it saves
site_report     each attention and MLP site, and each operator that runs on all tokens
causes          what changed tokens, and what read rows
session_report  rows and FLOPs of a session; `step_choices`: which tokens, and why; `picture`: drawn
cuda_graphs     steps that ran as CUDA graphs, and why others did not
head_report     a captured denoiser: what it depends on, what of it ran when; `heads`: before there is a session
dropped         what is kept no more, since there is a bound on it
operators       a captured step operator by operator: where each runs, on how many rows
graphs          a rewritten step as a table; `dot`: for Graphviz; `model_explorer`; `page`: a report as one file of HTML
tables          how numbers are written, and names that look like markup
"""
