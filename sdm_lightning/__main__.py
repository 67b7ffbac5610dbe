"""``python -m sdm_lightning``: the ``sdm`` command of this interpreter."""

from sdm_lightning.cli.main import main

if __name__ == "__main__":
    main()
