"""Faults of the machine around a run, each in one line: memory, disk, processes, network."""

import errno
import re
import sys

PLACES = (
    FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError,
)  # fmt: skip
"""A path that cannot be read or written as it was asked for."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def explain_fault(error: BaseException) -> str | None:
    """Return the user's line for a fault that is known, None for any other exception.

    Args:
        error: As it was raised; exceptions that it was raised from are looked at too.
    """
    seen: BaseException | None = error
    while seen is not None:
        if (line := _explain(seen)) is not None:
            return line
        seen = seen.__cause__ or seen.__context__
    # Not of what it was raised from: that may have been handled.
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG and error.filename:
        return f"{error.filename}: the name is too long for this disk"
    if isinstance(error, PLACES) and error.filename:
        return f"{error.filename}: {(error.strerror or 'cannot be used').lower()}"
    return None


def _explain(error: BaseException) -> str | None:
    text = " ".join(str(error).split())
    if _is(error, "torch", "OutOfMemoryError"):
        return (
            f"out of GPU memory ({_allocation(text)}): lower data.batch_size (with "
            "data.global_batch_size set, it is the same training in a fraction of the memory) or "
            "data.eval_batch_size, set trainer.precision to bf16-mixed, or set "
            "--model.generator.init_args.checkpoint_blocks true (less memory, more time); for sdm "
            "inpaint lower --work_size"
        )
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        return (
            "out of memory: lower data.num_workers, data.shuffle_shards or data.batch_size (with "
            "data.global_batch_size set, it is the same training)"
        )
    if isinstance(error, OSError) and error.errno in FULL:
        where = f"{error.filename}: " if error.filename else ""
        return (
            f"{where}{error.strerror}; earlier files are intact; free some space, then "
            "continue with --ckpt_path last (fit) or start the command again"
        )
    if "DataLoader worker" in text and ("killed by signal" in text or "exited unexp" in text):
        return (
            f"a data worker died ({text.partition('. ')[0].rstrip('.')}), most likely because the "
            "machine ran out of memory: lower data.num_workers or data.shuffle_shards, then "
            "continue with --ckpt_path last"
        )
    if isinstance(error, RuntimeError) and _is_lost_peer(text):
        return (
            "another process of this training has ended, see its message: continue with "
            f"--ckpt_path last ({text[:120]})"
        )
    if _is(error, "wandb.errors", "Error"):
        return (
            f"W&B: {text[:200]}; check WANDB_API_KEY and the network, or log offline "
            "(--config configs/logger/wandb.yaml) and upload later with 'wandb sync'"
        )
    return None


def _is(error: BaseException, module: str, name: str) -> bool:
    """Return whether it is of a class whose module need not have been imported."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(error, kind)


def _allocation(text: str) -> str:
    """Return the part of PyTorch's long message that states how much was requested."""
    found = re.search(r"Tried to allocate ([\d.]+ \w+)", text)
    return f"tried to allocate {found[1]}" if found else text[:80]


def _is_lost_peer(text: str) -> bool:
    return bool(
        re.search(
            r"Connection (closed by peer|reset by peer|refused)|Broken pipe|"
            r"NCCL (communicator was aborted|error: remote process)|"
            r"Read error \[|Write error \[|Socket closed|recvValue failed|"
            r"Timed out waiting \d+ms for (recv|send) operation",
            text,
        )
        and re.search(r"gloo|NCCL|TCPStore|store|c10d|socket|Read error|Write error", text, re.I)
    )
