"""From a file to a network that can be judged, with the trigger that came along."""
