"""Distil YOLOv5-L into YOLOv5-N: mask.

mask   Features of the student's neck imitate the teacher's, inside ground-truth boxes and outside them as two
       means with weights of their own (DeFeat, Guo 2021);
       layers 13, 17, 20, 23.

Weights: recipes/ln_4maskdiff.yaml, or --mask_diff.
All other flags are those of distill.py:

    python distill_ln_4maskdiff.py --data data/ICDAR.yaml --name ln_4maskdiff
"""

from distill import main
from utils.runtime.cli import run_command

if __name__ == '__main__':
    run_command(lambda: main('recipes/ln_4maskdiff.yaml'))
