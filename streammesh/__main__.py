"""`python -m streammesh`: the same as the command `streammesh`."""

from streammesh.cli import main

if __name__ == "__main__":
    main()
