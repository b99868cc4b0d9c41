"""A seeded random Llama model in a directory, for the process tests: a real transformer without a
download. Its vocabulary is the canned model's."""
import pathlib
import subprocess

from sluice_process import BIN, SOURCE

TOKENIZER = SOURCE / "models" / "canned" / "tokenizer.model"


def write_seeded_model(directory, dtype="BF16", seed=1):
    """Writes config.json, model.safetensors, tokenizer.model and tokenizer_config.json."""
    subprocess.run([str(BIN / "write_model"), str(directory), str(TOKENIZER), dtype, str(seed)],
                   check=True)
    return pathlib.Path(directory)


def llama_model(directory, **changes):
    """The model's entry in a configuration."""
    return {"name": "llama", "kind": "llama", "path": str(directory), "context_tokens": 1024,
            **changes}
