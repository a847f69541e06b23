"""Many runs at once: grids of settings as YAML files, their execution, and verdicts on what they claim."""
