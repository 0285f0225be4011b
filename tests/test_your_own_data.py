"""docs/your_own_data.md, followed to the letter: its CSV is made, and its command leads to a table."""

import json
import re
import shlex
import subprocess
import sys

import pytest

from tests.composing import CONF

PAGE = (CONF.parent / "docs/your_own_data.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_leads_from_nothing_to_a_table(tmp_path):
    for name, text in re.findall(r"^```python file=(\S+)\n(.*?)^```$", PAGE, re.M | re.S):
        (tmp_path / name).write_text(text, encoding="utf-8")
    commands = [shlex.split(line, comments=True)[1:] for line in PAGE.splitlines() if line.startswith("    python ")]
    assert commands[0] == ["reviews.py"] and "experiment=tiny" in commands[1]
    for script, *arguments in commands[:2]:
        if script == "run.py":
            script, arguments = str(CONF.parent / script), [*arguments, "paths.pretrained=null"]
        done = subprocess.run([sys.executable, script, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    (results,) = tmp_path.rglob("results.json")
    found = json.loads(results.read_text(encoding="utf-8"))
    assert found["tasks"] == ["attribute"]
    assert {"gold", "unguided", "guided_diffusion", "fudge"} <= set(found["methods"])
