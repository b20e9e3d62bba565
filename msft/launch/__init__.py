"""Many runs: grids, the slots of this machine, a SLURM cluster, their status."""
