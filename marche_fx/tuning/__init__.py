"""The cheapest policy or recipe within a bound, on the user's own generation.

tune         the search for a refresh policy, by drift
families     the policies that it tries
replay       one exact generation recorded, and its steps replayed under a policy
generation   the search for a recipe of the whole, `tune_recipe`, in stages; `ingredients` are what it puts together
halving      many candidates measured a little, fewer more closely
head_stage, policy_stage, image_stage   what is halved: heads, refresh policies, whole recipes
head_readings   tokens that a head drew, drawn again in other ways; `energy` compares them
recipe_trials   images and times of recipes; `judging` says how good, with `intervals`; `notebook` keeps it resumable
tuned_recipe    what was found
"""
