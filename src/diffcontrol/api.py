"""Controlled text from Python: `diffcontrol.load(data="restaurants").generate(length=12)`."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobRuntime
from hydra.errors import HydraException
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf

from diffcontrol import allowed, places, resolvers
from diffcontrol.evaluation import succeeded
from diffcontrol.method import Method
from diffcontrol.preparing import Prepared, asked_from, prepare, resolved, store_of
from diffcontrol.refused import Refused
from diffcontrol.report.terminal import drawn
from diffcontrol.report.texts import pieces
from diffcontrol.requests import entry
from diffcontrol.task import Mark

INSTEAD = {  # groups that are not chosen by an override, and how they are
    "method": "an override chooses no method; the argument `method` of load does",
    "task": "an override chooses no task; generate(task=target) does",
}
SEARCHED = "hydra.searchpath"  # the setting of Hydra's that names folders of options beside conf/
TEACHER = "teacher"  # of the judges, the one that measures perplexity


@dataclass(frozen=True)
class Result:
    """One text that was written.

    words: the words of the text; scores: task → its strict success in [0, 1], and `all`, 1 or 0, where several tasks
    were asked for; perplexity: of the text under a language model that no method uses, None where it was not measured;
    marks: task → the words in which its control shows.
    """

    words: tuple[str, ...]
    scores: Mapping[str, float]
    perplexity: float | None = None
    marks: Mapping[str, Sequence[Mark]] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The words, joined by spaces."""
        return " ".join(self.words)

    @property
    def marked(self) -> str:
        """The text as the terminal shows it without colour: `[label: words]` or `word/label` where a control shows,
        with `!` where it is not as asked; a line for each task that marks anything."""
        shown = [own for own in self.marks.values() if own] or [()]
        return "\n".join(drawn(pieces(self.words, own)).plain for own in shown)


@dataclass(frozen=True)
class Step(Result):
    """The likeliest words at one step of a reverse process. t: its time, which falls from 1 (noise) to where
    the sampler stops, before 0, as too little noise is left there to change a word."""

    t: float = 0.0


class Model:
    """One method, ready to write for any tasks. Made by `load`.

    overrides: what the command line would say, but for `task=` and `method=`; methods: those that are composed, the
    last of which writes; store, pretrained: folders of models, as in conf/paths where None; config_dir: a folder of
    options of one's own, beside conf/.
    """

    def __init__(self, overrides: Sequence[str], methods: Sequence[str], store: str | PathLike[str] | None = None,
                 pretrained: str | PathLike[str] | None = None,
                 config_dir: str | PathLike[str] | None = None):  # fmt: skip
        self.overrides, self.methods = (*overrides, *_searched(config_dir, overrides)), tuple(methods)
        self.paths = {key: str(value) for key, value in (("store", store), ("pretrained", pretrained)) if value}
        self.composed: dict[tuple[str, ...], DictConfig] = {}
        self.store = store_of(resolved(self._compose()))

    def generate(self, *, n: int = 1, seed: int | None = None, perplexity: bool | None = None,
                 **targets: Any) -> list[Result]:  # fmt: skip
        """Writes `n` texts that are to meet all of the targets at once, given as task=target. Models that are missing
        are trained first.

        seed: of what is drawn, None: as configured; the same seed gives the same texts, and a larger `n` further ones.
        perplexity: whether it is measured, for which its language model has to be trained; None: where that model is
        there already.

        Raises:
            Refused: there is no such task, a task does not accept its target, the targets contradict each other, or the
                method is not applicable to the tasks.
        """
        if not allowed.whole(1).test(n := _plain(n)):
            raise Refused(f"generate(n={n!r}): n is the number of texts, 1 or more")
        ready = self._prepared(targets, seed, perplexity)
        (texts,) = self.store.build(ready.methods[self.methods[-1]]).generate(ready.requests, n)
        return _results(texts, ready)

    def denoise(self, *, steps: int = 10, method: str | None = None, seed: int | None = None,
                **targets: Any) -> list[Step]:  # fmt: skip
        """Writes one text by a reverse process and returns what it looked like on the way: the likeliest words at
        `steps` of its steps, evenly spaced, the finished text last.

        method: another method of the configuration, as "unguided", which starts from the same noise; None: the one
        that `generate` writes with. seed, targets: as in `generate`.

        Raises:
            Refused: as `generate` does; or the method does not denoise, or there is no such method.
        """
        if not allowed.whole(1).test(steps := _plain(steps)):
            raise Refused(f"denoise(steps={steps!r}): steps is the number of steps to return, 1 or more")
        ready = self._prepared(targets, seed, perplexity=False)
        name = method or self.methods[-1]
        if name not in ready.methods:
            raise Refused(f"denoise(method={name!r}): the configuration has the methods {', '.join(ready.methods)}")
        found = self.store.build(ready.methods[name]).denoising(ready.requests[0], steps)
        if not found:
            raise Refused(f"denoise: the method {name} does not denoise a whole text step by step")
        shown = zip(found, _results([words for _, words in found], ready), strict=True)
        return [Step(result.words, result.scores, marks=result.marks, t=t) for (t, _), result in shown]

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks that `generate` knows, also of those for which the data have no targets."""
        with _hydra() as loader:
            return self._options(loader, "task")

    def targets(self, task: str, n: int = 50) -> dict[str, Any]:
        """Targets of a task to choose from, target in words → target: those that are true of the most texts of the
        data (its dev split) first, `n` of them at most. `generate` accepts many more.

        Raises:
            Refused: there is no such task, or the data know nothing of what it asks for.
        """
        if not allowed.whole(1).test(n := _plain(n)):
            raise Refused(f"targets(n={n!r}): n is the number of targets, 1 or more")
        cfg = self._configured((task,), None)
        found, corpus = self.store.build(cfg["task"][task]), asked_from(cfg, self.store)
        count: Counter[str] = Counter()
        for example in corpus.splits["dev"]:
            count.update({json.dumps(target) for target in found.targets(found.annotate(example))})
        most = [json.loads(text) for text, _ in count.most_common(n)]
        return {" ".join(found.serialize(target)): target for target in most}

    def _prepared(self, targets: Mapping[str, Any], seed: int | None, perplexity: bool | None) -> Prepared:
        """The tasks, the request, the judges and the methods of these targets; what is missing of the judges is trained
        first.

        perplexity: as in `generate`.
        """
        if not targets:
            raise Refused("name a task and its target, as in length=12")
        cfg = self._configured(tuple(targets), seed)
        allowed.group(cfg["targets"], "targets.seed")
        cfg["targets"] |= {"from": [{task: _plain(target) for task, target in targets.items()}], "n": None}
        cfg["targets"]["on_invalid"] = "error"  # there is one target
        teacher = cfg["judge"].get(TEACHER)
        if perplexity is True and not teacher:
            raise Refused(f"perplexity=True needs the judge {TEACHER}, which judge=… or an override has left out")
        if teacher and (perplexity is False or (perplexity is None and not self.store.has(teacher))):
            del cfg["judge"][TEACHER]
        try:
            ready = prepare(cfg, self.store)
            if (writer := self.methods[-1]) not in ready.methods:  # on_unsupported=skip has left it out
                Method.check_node(cfg["method"][writer], ready.tasks, ready.corpus)  # and this says why
            return ready
        except Refused as error:  # who calls from Python named no list of targets
            raise Refused(str(error).removeprefix(f"{entry(1)}: ")) from error

    def _configured(self, tasks: tuple[str, ...], seed: int | None) -> dict[str, Any]:
        """The configuration of these tasks, plain and new."""
        if tasks not in self.composed:
            self.composed[tasks] = self._compose(tasks)
        cfg = deepcopy(self.composed[tasks])
        if seed is not None:
            cfg.seed = _plain(seed)
        return resolved(cfg)

    def _options(self, loader: ConfigLoader, group: str) -> list[str]:
        """The options of a group: those that ship, and those of the folders that the overrides add."""
        return list(loader.get_group_options(group, overrides=list(self.overrides)))

    def _compose(self, tasks: Sequence[str] = ()) -> DictConfig:
        """The configuration as Hydra composes it: of these tasks, or of its default one."""
        resolvers.register()
        groups = {"method": self.methods, "task": tasks}
        chosen = [f"{group}=[{','.join(names)}]" for group, names in groups.items() if names]
        try:
            for override in self.overrides:
                places.refuse_null(override)
            with _hydra() as loader:
                for group, names in groups.items():
                    known = self._options(loader, group)
                    for name in set(names) - set(known):
                        raise Refused(f"{group}={name}: there is no such {group}; it is one of {', '.join(known)}")
                cfg = compose("config", [*self.overrides, *chosen])
        except Refused:
            raise
        except (ValueError, TypeError) as error:
            raise Refused(f"{', '.join(self.overrides)}: Hydra cannot compose this ({error})") from error
        except HydraException as error:  # it names the value and lists what is allowed, then where it looked
            raise Refused(" ".join(str(error).partition("\nConfig search path")[0].split())) from error
        OmegaConf.set_struct(cfg, False)
        cfg.pop("logger", None)  # it writes into the folder of a run, and here is none
        cfg.paths.update(self.paths)
        return cfg


def _searched(config_dir: str | PathLike[str] | None, overrides: Sequence[str]) -> list[str]:
    """The override by which Hydra searches a folder of options as well as conf/; none where there is no such folder to
    search.

    Raises:
        Refused: the folder does not exist, or an override names such folders already.
    """
    if config_dir is None:
        return []
    if not (folder := Path(config_dir).absolute()).is_dir():
        raise Refused(f"load(config_dir={str(config_dir)!r}): there is no such folder")
    for override in overrides:
        if override.lstrip("+").partition("=")[0] == SEARCHED:
            raise Refused(f"load({override!r}, config_dir={str(config_dir)!r}): both name folders of options; put all "
                          f"of them into {SEARCHED} and leave config_dir out")  # fmt: skip
    quoted = str(folder).replace("'", r"\'")
    return [f"{SEARCHED}=['file://{quoted}']"]  # as --config-dir writes it; Path.as_uri would turn a space into %20


def _plain(value: Any) -> Any:
    """A value in Python's own types, where it is an array or a number of NumPy's or PyTorch's."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value


def _results(texts: Sequence[Sequence[str]], ready: Prepared) -> list[Result]:
    """Texts for the one request of `ready`, scored and marked."""
    success, _ = succeeded([texts], ready.requests, ready.tasks, ready.judges)
    marks = {
        name: task.marks(texts, [ready.requests[0].targets[name]] * len(texts), ready.judges)
        for name, task in ready.tasks.items()
    }
    measured: list[float | None] = [None] * len(texts)
    if teacher := ready.judges.get(TEACHER):
        measured = [math.exp(nats / tokens) for nats, tokens in zip(*teacher.nll(texts), strict=True)]
    return [
        Result(
            tuple(words),
            {task: float(named["strict"][0, i]) for task, named in success.items()},
            measured[i],
            {task: own[i] for task, own in marks.items()},
        )
        for i, words in enumerate(texts)
    ]


def load(*overrides: str, data: str | None = None, method: str | Sequence[str] = "guided_diffusion",
         store: str | PathLike[str] | None = None, pretrained: str | PathLike[str] | None = None,
         config_dir: str | PathLike[str] | None = None) -> Model:  # fmt: skip
    """A model that writes texts under control, from the configuration that `diffcontrol` has on the command line.

    Nothing is trained or read yet; the first `generate` does so.

    overrides: as on the command line, e.g. "sampler.steps=50", "guidance=langevin", "trainer.accelerator=gpu".
    data: the texts that everything learns from, an option of conf/data; None: restaurants, or what an override says.
    method: an option of conf/method; of several, of which one chooses among the texts of another, the last one writes.
    store: the folder that models are trained into and read from; None: `store` in the current folder.
    pretrained: a folder, or hf://owner/name, that is searched first and never written to; None: the weights that ship.
    config_dir: a folder of options of one's own, laid out as conf/ is, which the command line calls --config-dir; None:
        only those that ship.

    Raises:
        Refused: an override names what there is not, or chooses a method or a task, which `load` and `generate` do; or
            no method is named, the data are named twice, or there is no such folder `pretrained` or `config_dir`.
    """
    for override in overrides:
        if (group := override.lstrip("+~").partition("=")[0]) in INSTEAD:
            raise Refused(f"load({override!r}): {INSTEAD[group]}")
        if data and group == "data":
            raise Refused(f"load({override!r}, data={data!r}): both choose the data; leave one of them out")
    methods = [method] if isinstance(method, str) else method
    if not isinstance(methods, Sequence) or not methods or not all(isinstance(name, str) for name in methods):
        raise Refused(f"load(method={method!r}): one method is needed, or a list of them; those that ship are "
                      + ", ".join(places.options("method")))  # fmt: skip
    chosen = [*overrides, f"data={data}"] if data else list(overrides)
    return Model(chosen, methods, store, pretrained, config_dir)


@contextmanager
def _hydra() -> Iterator[ConfigLoader]:
    """Hydra on our conf/, leaving another Hydra application of this process as it was."""
    application, base = GlobalHydra.instance(), VersionBase.instance().getbase()
    running = application.hydra
    application.clear()  # Hydra refuses to be initialised twice
    try:
        with initialize_config_dir(str(places.conf()), job_name=JobRuntime.instance().get("name"), version_base="1.3"):
            yield GlobalHydra.instance().config_loader()
    finally:
        GlobalHydra.set_instance(application)
        application.hydra = running
        if running and base is not None:
            VersionBase.instance().setbase(base)
