"""One experiment: `python run.py task=semantic_content`. What can be chosen lies in conf/."""

import hydra
from omegaconf import DictConfig, OmegaConf

OmegaConf.register_new_resolver("task_names", lambda *, _root_: "+".join(_root_.task), use_cache=False)


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    from diffcontrol.experiment import run  # imported late, so that --help and a mistyped option answer at once

    return run(cfg)


if __name__ == "__main__":
    main()
