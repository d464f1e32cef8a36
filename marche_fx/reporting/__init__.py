"""What was found, what is done with it, and what a session computed.

report          `explain` and `report`; start here
step_report     one captured step: what was found in it, what is done with it, what it saves
site_report     each attention and MLP site, and each operator that runs on all tokens
causes          what changed tokens, and what read rows
session_report  rows and FLOPs of a session; `step_choices`: which tokens, and why; `picture`: drawn
head_report     a captured denoiser: what it depends on, what of it ran when; `heads`: before there is a session
graphs          a rewritten step, operator by operator        tables  how numbers are written
"""
