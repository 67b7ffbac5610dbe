"""``sdm demo``: the whole way once on real photos, and its report."""
