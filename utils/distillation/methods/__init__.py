"""The registry of distillation methods: the method NAME is this class in the file NAME.py beside this one.

A new method needs its file and its line here; docs/methods.md has a template.
"""

METHODS = {
    'cwd': 'CWD',
    'defeat': 'DeFeat',
    'fgd': 'FGD',
    'gid': 'GID',
    'hint': 'Hint',
    'logit': 'Logit',
    'maps': 'Maps',
    'mask': 'Mask',
    'mgd': 'MGD',
    'pfi': 'PFI',
    'pkd': 'PKD',
    'quad': 'Quad',
    'rank': 'Rank',
    'score_l2': 'ScoreL2',
}
