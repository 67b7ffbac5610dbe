"""The page of ``sdm app``: open a photo, paint a hole, look at how it is filled, download."""
