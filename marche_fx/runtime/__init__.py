"""What runs in every step of a generation.

session        one generation: owner of the caches          pending    one call, computed when its results are read
program        a rewritten step, shared by sessions         state      what one session keeps of it: the caches
prologue       what need not run again                      last_inputs   which tokens changed
choose         which tokens are active                      token_history  ages, signals and choices of the policy
measure        signals a policy asks for                    records    what was computed, and why
method         what `transform` was told; warnings
weights, verify, monitor   the model's weights; the check against the original, at first and now and then
"""
