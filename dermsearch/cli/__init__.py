"""The commands: thin; nothing heavy is imported before a command needs it."""
