"""Views of a study: its front as tables, pictures and pages."""

import logging

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it finds another font, another cache
