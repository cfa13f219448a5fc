"""The command `mgw`: one file a verb."""


def main() -> int:
    """Run the verb that the command line names. Imports late, for parts of this package are programs of their own."""
    from controlplane.cli.app import run

    return run()
