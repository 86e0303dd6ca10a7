"""The screens of the app: log-in, conversations, chat."""
