"""The distillation methods, one a file. A file NAME.py with `METHOD = ItsClass`, named here, is the method NAME."""

METHODS = ('cwd', 'defeat', 'fgd', 'gid', 'hint', 'logit', 'mask', 'mgd', 'pfi', 'pkd', 'quad', 'rank', 'score_l2')
