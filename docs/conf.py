"""How Sphinx builds these pages; `make docs` calls it, with warnings as errors."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from moorage.config.version import VERSION

project = "Moorage"
author = "Moorage contributors"
copyright = "2026, Moorage contributors"  # the name is Sphinx's
release = VERSION

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = True

html_theme = "furo"
html_title = f"Moorage {VERSION}"
