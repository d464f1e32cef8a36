"""A report as a page: one file of HTML, with its styles and its script in it.

render    puts the parts into `template.html`, with `style.css` and `script.js`; start here
captured  one captured step: sites, what runs on all tokens; `modules`: the model, operator by operator
session   what a session comes to, step by step; `frames`: which tokens were computed and why, for the figure
denoiser  a captured denoiser
html      elements whose text is escaped
"""
