"""What runs in every step of a generation.

open_sessions  which session a call belongs to          session      one generation, and the streams of its calls
stream         calls under one condition: caches        call_inputs  how far two calls are apart
turns          whether calls of many streams take turns
pending        one call, computed when it is read       log of it: records
late_results   what a loop holds of it until then       results      what it has of them from then on
program        a rewritten step, shared by sessions     state        what a stream keeps of it
prologue       what need not run again                  last_inputs  which tokens changed
wide           a result whose rows are computed where they are read
choose         which tokens are active                  token_history  ages, signals and choices of the policy
rounding       what caches of lower precision cost
exactness      which cached rows nothing new can reach  lengths      rows kept when the number of tokens changes
expected       which rows a loop is about to read beside those that it names first
findings       what was computed, and what forced it    advice       what a session lost, and what mends it
pace           whether it took longer than the original
measure        signals a policy asks for                method       what `transform` was told
graphs/        steps as CUDA graphs                     users_code   warnings that point to it
host           tensors in the processor's memory, looked at without an operator
terminal       what takes long at first                 out_of_memory  caches freed, and what was needed
weights, verify, monitor   the model's weights; the check against the original, at first and now and then
"""
