"""A researcher's script: the recipe in one of FLARE's environments. Prints the folder of the result.

Run as  python run_recipe.py sim|poc FOLDER CODE PROJECT SITE,... SETTING...
"""

import sys
from pathlib import Path

from nvflare.recipe import PocEnv, SimEnv

from med_duallora.flare.jobs.recipe import MedDualLoRARecipe
from med_duallora.settings.config import JobConfig
from med_duallora.settings.workflow import WorkflowConfig

ADMIN = "project-admin@coordination.example.org"

if __name__ == "__main__":
    kind, folder, code, project, names, *settings = sys.argv[1:]
    sites = names.split(",")
    job = JobConfig().with_overrides(settings)
    recipe = MedDualLoRARecipe("recipe", job, WorkflowConfig(min_sites=len(sites)), code)
    if kind == "sim":
        env = SimEnv(clients=sites, workspace_root=folder)
    else:
        env = PocEnv(project_conf_path=project, username=ADMIN, extra={"login_timeout": 60})
    run = recipe.run(env)
    result = run.get_result(clean_up=False)
    assert result and Path(result).is_dir(), f"no result of {run.get_job_id()}: {run.get_status()}"
    print(f"result: {result}")
