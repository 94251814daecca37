"""From a CT to straightened patches along its spine, and back."""
