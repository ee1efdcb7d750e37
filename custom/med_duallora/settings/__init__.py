"""The settings of a job and the policy of a site: their fields, their limits and how they are read."""
