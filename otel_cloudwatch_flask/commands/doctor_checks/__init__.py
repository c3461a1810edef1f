"""The checks of ``doctor``, one module for each subject. Each check returns findings with a remedy."""
