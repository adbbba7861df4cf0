"""The built-in commands, one a module; `modelhub.cli` finds them by name."""
