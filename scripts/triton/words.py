"""What a tritonserver said at last, from its log: its errors, cleaned of times and places."""

import re
from pathlib import Path

# What tells an error in the log, less its time and place; what is said on any machine without a GPU;
# and what comes before the reason, which several lines give.
ERROR = re.compile(
    r"(?:E\d{4} \S+\s+\d+ \S+\]|error: creating server:|\[libprotobuf ERROR \S+\]|terminate called|"
    r"  what\(\):|\S*tritonserver: )\s*(.*)"
)
HARMLESS = ("CudaDriverHelper", "NVML", "DCGM", "unable to create stream")
BEFORE_REASON = re.compile(
    r".*(?:Failed to \w+ [\w ]+|Internal|Invalid argument|Not found|Unavailable|Unsupported): "
)
MOST_WORDS = 5


def last_words(log: Path) -> str:
    """The last errors in the server's log as a sentence, or its last line when there is none."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    found: list[str] = []
    for line in lines:
        error = ERROR.match(line)
        words = "" if error is None or any(word in line for word in HARMLESS) else error[1]
        if not (words := _cleaned(words)):
            continue
        reason = BEFORE_REASON.sub("", words)
        same = [at for at, other in enumerate(found) if reason in other]
        if not same:
            found.append(words)
        elif words.startswith("failed to load"):  # that one names the model
            found[same[0]] = words
    if len(found) > 1:
        found = [words for words in found if "failed to load all models" not in words]
    if not found:
        said = [line for line in lines if line.strip() and line[0] not in "+|"]
        found = [_cleaned(re.sub(r"^[IWE]\d{4} \S+\s+\d+ \S+\]", "", line)) for line in said[-1:]]
    return f"its last words: {'; '.join(found[-MOST_WORDS:]) or 'none'}."


def _cleaned(words: str) -> str:
    """Without quotation marks, line breaks, and what Python says of its own."""
    words = words.strip().strip('"').split("\\n\\nAt:")[0]
    words = words.replace("TritonModelException: ", "")  # of the Python backend alone
    return re.sub(r"(?:\s|\\[nt])+", " ", words).rstrip(" .;")
