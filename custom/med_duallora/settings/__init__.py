"""The settings of jobs, workflow and sites, and a site's policy: their fields, their limits and how they are read."""
