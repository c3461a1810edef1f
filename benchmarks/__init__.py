"""The cost of this package to an application, measured next to the alternatives."""
