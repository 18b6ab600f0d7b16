"""The protocol between what runs pods and what attaches them to the network."""
