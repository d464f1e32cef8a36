"""The cheapest policy or recipe within a bound, on the user's own generation.

tune         the search for a refresh policy, by drift
families     the policies that it tries
replay       one exact generation recorded, and its steps replayed under a policy
generation   the search for a recipe of the whole, `tune_recipe`, by stages; `ingredients` are what it puts together
halving      many candidates measured a little, fewer more closely
heads        tokens drawn again in other ways, compared by `energy`
recipe_trials   images and times of recipes; `judging` says how good, with `intervals`; `notebook` keeps it resumable
tuned_recipe    what was found
"""
