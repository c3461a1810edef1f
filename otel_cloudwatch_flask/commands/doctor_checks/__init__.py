"""The checks that ``doctor`` runs, one module per subject. Each check yields a finding and, if needed, a remedy."""
