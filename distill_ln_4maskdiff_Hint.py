"""Distil YOLOv5-L into YOLOv5-N: mask + hint.

mask   Features of the student's neck imitate the teacher's, inside ground-truth boxes and outside them as two
       means with weights of their own (DeFeat, Guo 2021);
       layers 13, 17, 20, 23.
hint   Backbone features imitate the teacher's at every cell (FitNets, Romero 2015), on layers that the mask
       does not touch, where it would only reweight it;
       layers 4, 6, 9.

Weights: recipes/ln_4maskdiff_Hint.yaml, or --mask_diff, --feature_diff.
All other flags are those of distill.py:

    python distill_ln_4maskdiff_Hint.py --data data/ICDAR.yaml --name ln_4maskdiff_Hint
"""

from distill import main
from utils.runtime.cli import run_command

if __name__ == '__main__':
    run_command(lambda: main('recipes/ln_4maskdiff_Hint.yaml'))
