"""The command line: it parses, prints and exits."""
