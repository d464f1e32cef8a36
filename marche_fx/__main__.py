"""The program ``marche-fx``, which is also ``python -m marche_fx``."""

import importlib.util
import sys

NEEDED = ("typer", "matplotlib")
"""What the command line needs and the library does without."""


def main() -> None:
    """Run the command line, or say what it lacks."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"marche-fx needs {' and '.join(missing)}: pip install 'marche-fx[cli]'", file=sys.stderr)
        raise SystemExit(1)
    from .cli import run

    run()


if __name__ == "__main__":
    main()
