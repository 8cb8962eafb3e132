"""What the SLURM target is made of: directives, scripts, the recognition of sites, logs."""
