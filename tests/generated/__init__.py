"""Random masked transformers, each described by a `Recipe` that rebuilds it.

``python -m tests.generated --count 5000 --seed 0 --out generated.jsonl`` tries many.
"""
