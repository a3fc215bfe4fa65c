"""The verbs of the command line, a file per verb or subject. Heavy imports stand inside the functions."""
