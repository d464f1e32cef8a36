"""A plan applied to its graph.

pack     dropped tokens get stable positions and are hidden from attention
split    active rows gathered, caches written and read; `parts` is what it makes, `cut` the knife, `copied` its
         operators, `head` those of a wide result, `gathers` what takes rows of full values
memory   in which order a cache lies, so that who reads all of it makes no copy
hooks    signals for refresh policies          scores  which attention can be observed
sites    which nodes a profiler is told to be of a site
watch    which values tell that a token changed
lengths  whether rows of one number of tokens are rows of another
denoiser a denoiser cut by what its operators depend on
stages   the prologue cut by the inputs that it depends on
"""
