"""Ready-made for the libraries of the field; each module needs its library, which is not a dependency."""
