"""Why a connection does not work: step by step, with the likely cause and the fix."""

from .examination import examine, verdict
from .steps import Outcome, Step

__all__ = ["Outcome", "Step", "examine", "verdict"]
