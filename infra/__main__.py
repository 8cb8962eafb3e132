"""`python -m infra` is the same as `trainwright`."""

from infra.cli import entry

if __name__ == "__main__":
    entry()
