"""What Triton's Python stub runs in local mode; nothing else imports it (scripts/triton_home.py copies it)."""
