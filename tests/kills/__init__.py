"""Commands that are stopped at random moments, and go on to what one that nobody disturbed wrote.

attempts  processes that are stopped, and go on     commands  what is stopped, and what of it has to be the same
"""
