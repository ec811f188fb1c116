"""Distil YOLOv5-X into YOLOv5-N: mask + PFI + hint.

mask   Features of the student's neck imitate the teacher's, inside ground-truth boxes and outside them as two
       means with weights of their own (DeFeat, Guo 2021);
       layers 17, 20, 23.
PFI    The same features once more, each cell weighted by how much the two heads' scores disagree there
       (Li 2022);
       layers 17, 20, 23.
hint   Backbone features imitate the teacher's at every cell (FitNets, Romero 2015), on layers that the mask
       does not touch, where it would only reweight it;
       layers 4, 6, 9.

Weights: recipes/xn_maskdiff_PFI_Hint.yaml, or --mask_diff, --PFI_diff, --feature_diff.
All other flags are those of distill.py:

    python distill_xn_maskdiff_PFI_Hint.py --data data/ICDAR.yaml --name xn_maskdiff_PFI_Hint
"""

from distill import main
from utils.runtime.cli import run_command

if __name__ == '__main__':
    run_command(lambda: main('recipes/xn_maskdiff_PFI_Hint.yaml'))
