"""Campaigns of simulated clusters: many seeds, each a whole cluster with clients, faults and a verdict.

    result = run_seed(17)                      # options drawn from the seed; result.verdict, result.findings
    result = run_seed(17, story=True)          # result.story has a line for every event
    `sweep simulate --seeds 1000`              # many seeds, as Ray tasks (campaign.py)

options.py draws the options of a seed. profiles.py drives its cluster into situations in which implementations of Raft
are known to fail. life.py runs the seed and judges it.
"""

from sweeps.campaign.life import SeedResult, run_seed
from sweeps.campaign.options import CampaignLoad, Options, draw
from sweeps.campaign.profiles import PROFILES

__all__ = ["PROFILES", "CampaignLoad", "Options", "SeedResult", "draw", "run_seed"]
