"""The flags that verbs share, each written once, in the names that users of other engines type from habit."""

from __future__ import annotations

import gc
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from ..weights.catalogue import DEFAULT_MODEL

if TYPE_CHECKING:
    from ..config import SamplingParams
    from ..llm import LLM

_SIZE = re.compile(r"(\d{1,15})\s*([kmgt]?)i?b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def parse_size(text: str | int) -> int:
    """Bytes of `512M`, `2GiB` or a plain number; units are powers of 1024. A default comes as a number."""
    if isinstance(text, int):
        return text
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a size such as 512M or 2G")
    return int(match[1]) * _UNITS[match[2].lower()]


def parse_weights(texts: Sequence[str]) -> dict[str, float]:
    """`name=2.5` of each text -> weights by name."""
    weights = {}
    for text in texts:
        name, _, weight = text.rpartition("=")
        try:
            weights[name] = float(weight)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not a weight such as research=2") from None
    return weights


ModelOption = Annotated[
    str,
    typer.Option(
        "--model", "-m", envvar="PELTON_MODEL", show_default=True,
        help="A catalogue name, pypi:, hf: or synthetic: reference, a GGUF file, or a Hugging Face folder.",
    ),
]  # fmt: skip
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Never use the network; PELTON_OFFLINE=1 does the same.")
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", "-t", envvar="PELTON_THREADS", help="Threads; one per processor if not given."),
]
IsaOption = Annotated[
    str | None,
    typer.Option(
        "--isa",
        help="Instruction-set level (generic, avx2, avx_vnni, avx512, avx512_bf16); or PELTON_ISA.",
    ),
]


@dataclass(frozen=True)
class EngineFlags:
    """How the engine is set up: fields of EngineSettings under the names of the command line."""

    model: ModelOption = DEFAULT_MODEL
    threads: ThreadsOption = None
    ctx_size: Annotated[
        int | None, typer.Option("--ctx-size", "-c", "--max-model-len", help="Context length in tokens.")
    ] = None
    executor: Annotated[str, typer.Option("--executor", help="native, or reference (NumPy, slow).")] = (
        "native"
    )
    isa: IsaOption = None
    kv_memory: Annotated[
        Any,
        typer.Option("--kv-memory", metavar="SIZE", parser=parse_size, help="Memory for keys and values."),
    ] = None
    kv_dtype: Annotated[
        str,
        typer.Option("--kv-dtype", "--kv-cache-dtype", help="auto, int8, bfloat16, float16 or float32."),
    ] = "auto"
    max_num_seqs: Annotated[
        int, typer.Option("--max-num-seqs", "--parallel", "-np", help="Sequences that run at once.")
    ] = 128
    max_num_batched_tokens: Annotated[
        int, typer.Option("--max-num-batched-tokens", "-b", help="Rows of one step.")
    ] = 512
    scheduler: Annotated[
        str,
        typer.Option("--scheduler", help="The order of requests, such as mlfq, fair or deadline."),
    ] = "token-budget"
    tenant_weight: Annotated[
        list[str] | None,
        typer.Option("--tenant-weight", metavar="NAME=WEIGHT", help="A tenant's share under fair."),
    ] = None
    swap_memory: Annotated[
        Any,
        typer.Option(
            "--swap-memory", metavar="SIZE", parser=parse_size, help="Memory for preempted requests."
        ),
    ] = None
    drafts: Annotated[
        str, typer.Option("--drafts", help="Guess next tokens from the text so far: ngram, or off.")
    ] = "ngram"
    prefix_cache: Annotated[
        bool, typer.Option("--prefix-cache/--no-prefix-cache", help="Keep KV for prompts that begin alike.")
    ] = True
    prefix_eviction: Annotated[
        str, typer.Option("--prefix-eviction", help="What gives way first: lru, or predicted.")
    ] = "lru"
    kv_cache_dir: Annotated[
        str | None, typer.Option("--kv-cache-dir", help="Folder in which cached prefixes survive a restart.")
    ] = None
    kv_disk: Annotated[
        Any, typer.Option("--kv-disk", metavar="SIZE", parser=parse_size, help="Most bytes in that folder.")
    ] = 4 << 30
    offline: OfflineOption = False

    def settings(self) -> Mapping[str, Any]:
        """Keyword options for LLM."""
        return {
            "threads": self.threads,
            "context_length": self.ctx_size,
            "executor": self.executor,
            "isa": self.isa,
            "kv_memory": self.kv_memory,
            "kv_dtype": self.kv_dtype,
            "drafts": self.drafts,
            "prefix_cache": self.prefix_cache,
            "prefix_eviction": self.prefix_eviction,
            "kv_cache_dir": self.kv_cache_dir,
            "kv_disk": self.kv_disk,
            "max_num_seqs": self.max_num_seqs,
            "max_num_batched_tokens": self.max_num_batched_tokens,
            "scheduler": self.scheduler,
            "tenant_weights": parse_weights(self.tenant_weight or ()),
            "swap_memory": self.swap_memory,
        }

    def open(self) -> LLM:
        """Load the model, fetching it first if need be, with a bar where someone sees it."""
        from ..llm import LLM
        from .console import progress_bar
        from .home import user_store

        with progress_bar(f"fetching {self.model}") as progress:
            store = user_store(offline=self.offline)
            llm = LLM(self.model, store=store, progress=progress, **self.settings())
        # The process is ours: the vocabulary's objects live as long as it, so the collector need not
        # look at them again and again (13 microseconds of 110 that Python takes a decode step).
        gc.freeze()
        return llm


@dataclass(frozen=True)
class SamplingFlags:
    """How tokens are chosen and when an answer ends: SamplingParams in llama.cpp's names and vLLM's."""

    max_tokens: Annotated[
        int,
        typer.Option(
            "--max-tokens", "-n", "--n-predict", help="Most tokens to generate; -1: to the context's end."
        ),
    ] = 1024
    temp: Annotated[float, typer.Option("--temp", "--temperature", help="0 takes the most likely token.")] = (
        0.7
    )
    top_k: Annotated[int, typer.Option("--top-k", help="Most likely tokens kept; 0 keeps all.")] = 0
    top_p: Annotated[float, typer.Option("--top-p", help="Probability mass kept.")] = 0.95
    min_p: Annotated[float, typer.Option("--min-p", help="Least probability relative to the best.")] = 0.0
    typical_p: Annotated[
        float, typer.Option("--typical-p", "--typical", help="Locally typical mass kept.")
    ] = 1.0
    repeat_penalty: Annotated[
        float, typer.Option("--repeat-penalty", "--repetition-penalty", help="Above 1 discourages repeats.")
    ] = 1.0
    frequency_penalty: Annotated[float, typer.Option("--frequency-penalty")] = 0.0
    presence_penalty: Annotated[float, typer.Option("--presence-penalty")] = 0.0
    seed: Annotated[
        int | None,
        typer.Option("--seed", "-s", help="The same seed gives the same text; drawn and shown if not given."),
    ] = None
    stop: Annotated[
        list[str] | None, typer.Option("--stop", "-r", help="End at this text; may be repeated.")
    ] = None
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Go on past the model's end token.")] = (
        False
    )

    def params(self) -> SamplingParams:
        """Checked parameters with a seed. Raises RequestError naming field and value."""
        from ..config import SamplingParams

        return SamplingParams(
            max_tokens=None if self.max_tokens == -1 else self.max_tokens,
            temperature=self.temp,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            typical_p=self.typical_p,
            repetition_penalty=self.repeat_penalty,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            seed=draw_seed() if self.seed is None else self.seed,
            stop=tuple(self.stop or ()),
            ignore_eos=self.ignore_eos,
        )


def draw_seed() -> int:
    """A seed short enough to be typed again."""
    import secrets

    return secrets.randbelow(10**6)


def flat(verb: Callable[..., None]) -> Callable[..., None]:
    """A command for typer from a function some of whose parameters are groups of flags (dataclasses)."""
    hints = get_type_hints(verb, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(verb).parameters.values():
        if parameter.name in groups:
            parameters += _parameters_of(groups[parameter.name])
        else:
            parameters.append(
                parameter.replace(annotation=hints[parameter.name], kind=parameter.KEYWORD_ONLY)
            )

    @wraps(verb)
    def command(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        verb(**values)

    command.__dict__["__signature__"] = inspect.Signature(parameters)
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _parameters_of(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(field.name, keyword, default=field.default, annotation=hints[field.name])
        for field in fields(group)
    ]
