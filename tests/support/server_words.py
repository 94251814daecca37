"""What the workstation's server can say in an error that reaches the page, read off its own source."""

import ast
from pathlib import Path

import sightline.web.workstation as workstation

ROOT = Path(workstation.__file__).parent
# what is said on the command line alone, or kept from the page
_COMMANDS = {
    "launch.py", "exchange/coco.py", "exchange/imports.py", "exchange/reader_study.py", "exchange/retraining.py",
    "reading/commands.py", "store/cohort_rows.py", "store/database.py", "store/audit.py", "marks/regions.py",
}  # fmt: skip


def pattern_of(node):
    """A literal text with `{}` for what is filled in; None of anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.replace("{", "").replace("}", "")
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value if isinstance(part, ast.Constant) else "{}"  # a text, or what is filled in
            for part in node.values
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = [pattern_of(one) for one in (node.left, node.right)]
        return None if None in parts else "".join(parts)
    return None


def server_words():
    """Messages and remedies, sorted."""
    found = set()
    for path in sorted(ROOT.rglob("*.py")):
        if str(path.relative_to(ROOT)) in _COMMANDS:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if named and node.func.id.endswith(("Refused", "Error", "Conflict", "NotThere", "UnreadableFile")):
                found |= {pattern_of(one) for one in node.args}
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and key.value in ("message", "remedy"):
                        found.add(pattern_of(value))
    return sorted(one for one in found if one and one != "{}" and " " in one)
