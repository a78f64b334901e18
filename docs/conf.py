"""Configuration of the site: `make docs` builds it with warnings as errors."""

import pathlib
import sys

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT), str(ROOT / "experiments"), str(ROOT / "tests" / "losses")]

from jaxclr.version import __version__  # noqa: E402

project = "jaxclr"
author = "The jaxclr authors"
copyright = "the jaxclr authors, Apache-2.0"
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "generate",
]
exclude_patterns = ["build", "families.md", "generated/runs", "generated/tables"]
templates_path: list[str] = []

# A broken reference to a name of this library fails; names of other libraries are not linked.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!jaxclr\b).*"),
    ("py:class", r"jaxclr(\.[a-z_]+){2,}\.\w+"),  # classes of modules that are not public
]
default_role = "literal"
suppress_warnings = ["mystnb.unknown_mime_type"]

myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_preprocess_types = False
napoleon_use_rtype = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
add_module_names = False

html_theme = "furo"
html_math_renderer = "mathml"
html_title = "jaxclr"
html_static_path = ["static", "generated/static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
