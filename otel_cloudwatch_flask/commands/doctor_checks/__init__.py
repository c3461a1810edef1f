"""Checks run by ``doctor``, one module per subject. Each check returns a finding and, if needed, a remedy."""
