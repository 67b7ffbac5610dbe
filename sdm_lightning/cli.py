"""The one door: ``sdm VERB ...``."""


def main(args: list[str] | None = None) -> None:
    """Run one verb."""
    raise SystemExit("error: not ready yet")
