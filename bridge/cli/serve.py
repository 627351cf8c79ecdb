"""`twinspan serve`, `core` and `bridge`: the gateway's parts as processes in the foreground."""

import logging

_log = logging.getLogger(__name__)
