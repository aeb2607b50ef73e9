"""What operators say of judged pictures, the queue of pictures to look at, and the audit log that keeps both."""

from winspect.feedback.settings import FeedbackSettings

__all__ = ["FeedbackSettings"]
