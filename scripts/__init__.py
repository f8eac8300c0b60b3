"""The steps of Verdict: each is a program, `python3 -m scripts.<verb_noun> --help`."""
