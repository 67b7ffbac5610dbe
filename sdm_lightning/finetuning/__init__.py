"""The command ``sdm finetune``: from a folder of photos to a model of them."""
