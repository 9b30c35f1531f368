"""`python -m segcli`, and `torchrun -m segcli`."""

from segcli.cli.main import run

if __name__ == "__main__":
    run()
