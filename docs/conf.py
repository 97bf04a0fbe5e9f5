"""The site: ``make docs``. Nothing is trained here; notebooks are shown as they are, or run where the workflow asks."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from neuroformer import __version__  # noqa: E402

project = "neuroformer"
author = "the neuroformer developers"
project_copyright = author
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinxarg.ext",
    "matplotlib.sphinxext.plot_directive",
]
exclude_patterns = ["_build", "jupyter_execute", "conf.py", "pictures"]
suppress_warnings = [
    "myst.domains",  # sphinx-argparse has one that is not looked into
    "toc.not_included",
]
html_extra_path = ["llms.txt"]
html_theme = "pydata_sphinx_theme"
html_title = f"neuroformer {release}"
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": []}
html_show_sourcelink = False
smartquotes = False  # options begin with two hyphens

# headings are targets of links, as on a repository's page; a link that leads nowhere is a warning, hence an error
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "dollarmath"]
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = os.environ.get(
    "NEUROFORMER_DOCS_RUN", "off"
)  # "force": run the notebooks, as the deployed site does
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_execution_raise_on_error = True

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings say what is taken, with shapes and units
napoleon_google_docstring = False
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_use_ivar = True

plot_formats = ["svg"]
plot_html_show_formats = plot_html_show_source_link = False
plot_basedir = "pictures"
