"""The cheapest policy within a bound on drift, on the user's own generation.

tune     the search; start here
families the policies that it tries
replay   one exact generation recorded, and its steps replayed under a policy
"""
