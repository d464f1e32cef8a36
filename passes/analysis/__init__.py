"""What a graph tells; nothing here changes one. `plan` holds all of it.

kept        where masked tokens are dropped
dimensions  which dimensions are one axis      axes    which axis is the token axis     layout  where it stands
attention, mlp     the sites, by dataflow      candidates  what comes nearest where there is none
region      the part that can run on some tokens, found by following `rows`
liveness    what nobody reads after that       cost  in FLOPs
groups      heads of queries that share keys, which a model copies for each of them
heads       what makes a wide result of a narrow value, row by row
sight       the masks that say whom each token attends to
denoiser    what a denoiser's operators depend on      residual  branches that its sums add
ids         which integers name one of many, so that none is nearly another
row_outputs which tokens each element of a result is computed of, by row_numbers
"""
